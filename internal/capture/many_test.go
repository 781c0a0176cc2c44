package capture

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phpwhy/phpwhy/internal/stack"
)

var someHost = Header{Host: Host{Name: "web1", BootID: "b", Kernel: "6.1.0", Arch: "amd64", CPUs: 2},
	Started: time.Date(2026, 11, 1, 12, 0, 0, 5000, time.UTC), Tool: "1.0"}

// mapped is sampleCapture of a process whose modules lie by bytes higher.
func mapped(by uint64) *Capture {
	c := sampleCapture()
	for i := range c.Stacks {
		for j := range c.Stacks[i].Frames {
			if f := &c.Stacks[i].Frames[j]; f.Kind == stack.Native {
				f.PC += 0x1000 * 16
			}
		}
	}
	c.Modules = []Module{{Path: "/usr/bin/php8.2", BuildID: "abcd", Start: 0, End: 1 << 63, Bias: by}}
	for i := range c.Stacks {
		for j := range c.Stacks[i].Frames {
			if f := &c.Stacks[i].Frames[j]; f.Kind == stack.Native {
				f.PC += addr(by)
			}
		}
	}
	return c
}

// many writes two rounds of two processes.
func many(t testing.TB, w io.Writer) {
	t.Helper()
	sw, err := NewStreamWriter(w, someHost)
	if err != nil {
		t.Fatal(err)
	}
	for round := 1; round <= 2; round++ {
		for i, pid := range []int{11, 12} {
			c := mapped(uint64(i) << 32)
			id, err := sw.Process(pid, uint64(pid)*10, "www", c.Target)
			if err != nil {
				t.Fatal(err)
			}
			if err := sw.Look(id, round, time.Duration(round)*time.Second, c); err != nil {
				t.Fatal(err)
			}
		}
		if err := sw.Fail(13, round, errors.New("no\xff")); err != nil {
			t.Fatal(err)
		}
		if err := sw.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(sw.Gone(12, 120, 3), sw.Gone(99, 1, 3), sw.End(3, "done")); err != nil {
		t.Fatal(err)
	}
}

// records reads everything, and the errors in between.
func records(r io.Reader) (recs []Record, errs []error) {
	s := NewStream(r)
	for {
		rec, err := s.Next()
		switch {
		case errors.Is(err, io.EOF):
			return recs, errs
		case err != nil:
			errs = append(errs, err)
			if !errors.Is(err, ErrTruncated) {
				return recs, errs
			}
			continue
		}
		recs = append(recs, rec)
	}
}

// census counts the records of each kind.
func census(recs []Record) map[string]int {
	n := make(map[string]int)
	for _, r := range recs {
		for name, there := range map[string]bool{"header": r.Header != nil, "binary": r.Binary != nil, "process": r.Process != nil,
			"stack": r.Stack != nil, "event": r.Event != nil, "look": r.Look != nil, "failure": r.Failure != nil, "gone": r.Gone != nil, "end": r.End != nil} {
			if there {
				n[name]++
			}
		}
	}
	return n
}

func TestManyProcessesReadBackAsWritten(t *testing.T) {
	var b bytes.Buffer
	many(t, &b)
	recs, errs := records(&b)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	// The processes map the binary at other addresses, and yet have the same stacks.
	want := map[string]int{"header": 1, "binary": 1, "process": 2, "stack": 3, "event": 12, "look": 4, "failure": 2, "gone": 1, "end": 1}
	if d := cmp.Diff(want, census(recs)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(&someHost, recs[0].Header); d != "" {
		t.Error(d)
	}
	c := mapped(0)
	for _, r := range recs {
		switch {
		case r.Stack != nil:
			if d := cmp.Diff(c.Stacks[r.Stack.ID], r.Stack.Stack); d != "" {
				t.Error(d)
			}
			for i, f := range r.Stack.Frames {
				want := Place{Binary: NoBinary}
				if f.Kind == stack.Native {
					want = Place{Binary: 0, Addr: uint64(f.PC), Exact: i == 0}
				}
				if r.Stack.Places[i] != want {
					t.Errorf("frame %d at %+v, want %+v", i, r.Stack.Places[i], want)
				}
			}
		case r.Look != nil:
			if d := cmp.Diff(c.Facts, r.Look.Facts); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(c.Target.Request, r.Look.Request); d != "" || r.Look.At != time.Duration(r.Look.Round)*time.Second {
				t.Errorf("%v: %s", r.Look.At, d)
			}
		case r.Event != nil && r.Event.Round == 1 && r.Event.Process == 0 && r.Event.Kind == Stop && r.Event.Stack == 0:
			if d := cmp.Diff(c.Events[0], r.Event.Event); d != "" {
				t.Error(d)
			}
		}
	}
}

func TestACaptureOfOneProcessReadsAsAStream(t *testing.T) {
	c := sampleCapture()
	var b bytes.Buffer
	if err := Write(&b, c); err != nil {
		t.Fatal(err)
	}
	whole := b.String()
	recs, errs := records(strings.NewReader(whole + whole))
	want := map[string]int{"header": 2, "process": 2, "stack": 6, "event": 6, "look": 2, "end": 2}
	if d := cmp.Diff(want, census(recs)); d != "" || len(errs) > 0 {
		t.Error(errs, d)
	}
	for _, r := range recs {
		if r.Look != nil {
			if d := cmp.Diff(c.Observation, r.Look.Observation); d != "" {
				t.Error(d)
			}
		}
	}
	cut := whole[:strings.Index(whole, `{"facts"`)]
	recs, errs = records(strings.NewReader(cut))
	want = map[string]int{"header": 1, "process": 1, "stack": 3, "event": 3, "look": 1}
	if d := cmp.Diff(want, census(recs)); d != "" || len(errs) != 1 || !errors.Is(errs[0], ErrTruncated) {
		t.Error(errs, d)
	}
	// A cut capture with another one behind it.
	recs, errs = records(strings.NewReader(cut + whole))
	if n := census(recs); n["look"] != 2 || len(errs) > 0 {
		t.Error(errs, n)
	}
}

func TestAKilledCollectorsFileIsReadableUpToItsLastRound(t *testing.T) {
	for _, name := range []string{"c.jsonl", "c.zst"} {
		path := filepath.Join(t.TempDir(), name)
		o, err := Create(path)
		if err != nil {
			t.Fatal(err)
		}
		sw, err := NewStreamWriter(o, someHost)
		if err != nil {
			t.Fatal(err)
		}
		c := mapped(0)
		id, _ := sw.Process(1, 1, "", c.Target)
		for round := 1; round <= 3; round++ {
			if err := sw.Look(id, round, 0, c); err != nil {
				t.Fatal(err)
			}
			if round < 3 {
				if err := sw.Flush(); err != nil {
					t.Fatal(err)
				}
			}
		}
		// Killed here. What was flushed is in the file, and a second collector's
		// file behind it counts as well where the first one ended whole.
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, cut := range []int{len(b), len(b) - 1, len(b) - 20} {
			z, err := Decompress(bytes.NewReader(b[:cut]))
			if err != nil {
				t.Fatal(err)
			}
			recs, errs := records(z)
			looks := 2
			if cut < len(b) {
				looks = 1
			}
			if n := census(recs); n["look"] < looks || len(errs) != 1 || !errors.Is(errs[0], ErrTruncated) {
				t.Errorf("%s cut to %d of %d: %v, %v", name, cut, len(b), n, errs)
			}
		}
		if err := o.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestACutAnywhereLosesOnlyWhatFollows(t *testing.T) {
	var b bytes.Buffer
	many(t, &b)
	for n := range b.Len() {
		recs, errs := records(bytes.NewReader(b.Bytes()[:n]))
		if n == 0 {
			continue
		}
		if len(errs) > 1 || len(errs) == 1 && !errors.Is(errs[0], ErrTruncated) && !errors.Is(errs[0], ErrSchema) {
			t.Fatalf("cut to %d: %v", n, errs)
		}
		if lines := bytes.Count(b.Bytes()[:n], []byte("\n")); len(recs) < lines {
			t.Fatalf("cut to %d: %d records of %d lines", n, len(recs), lines)
		}
	}
}

func TestBadLinesAreRefusedWithTheirNumber(t *testing.T) {
	var b bytes.Buffer
	many(t, &b)
	head, _, _ := strings.Cut(b.String(), "\n")
	process := `{"process":{"id":0,"pid":1,"start_ticks":1,"target":{"pid":1}}}`
	for _, c := range []struct{ lines, want string }{
		{`{"event":{"t_us":0,"kind":"sample","tid":1,"stack":0,"process":0,"round":1}}`, "stack 0"},
		{`{"look":{"process":0,"round":1,"t_us":0,"observation":{},"facts":{}}}`, "process 0"},
		{`{"process":{"id":1,"pid":1,"start_ticks":1,"target":{"pid":1}}}`, "0 is the next"},
		{`{"binary":{"id":-1,"path":"","build_id":""}}`, "0 is the next"},
		{`{"stack":{"id":0,"frames":[{"kind":"native","binary":0,"addr":"0x1"}],"end":"root"}}`, "binary 0"},
		{`{"stack":{"id":0,"frames":[{"kind":"goto"}],"end":"root"}}`, "goto"},
		{`{"stack":{"id":0,"frames":[{"kind":"native","pc":"x"}],"end":"root"}}`, "pc"},
		{`{"surprise":1}`, "surprise"},
		{`{"gone":{"process":0,"round":1},"end":{"rounds":1,"ended":""}}`, "2 of them"},
		{`{}`, "0 of them"},
		{`[]`, "cannot unmarshal"},
		{process + "\n" + `{"gone":{"process":0,"round":0}}`, "round 0"},
		{process + "\n" + `{"look":{"process":0,"round":1,"t_us":-1,"observation":{},"facts":{}}}`, "range"},
		{process + "\n" + `{"look":{"process":0,"round":1,"t_us":0,"observation":{},"facts":{"a":null}}}`, "null"},
	} {
		_, errs := records(strings.NewReader(head + "\n" + c.lines + "\n"))
		var le *LineError
		if len(errs) == 0 || !errors.As(errs[0], &le) || le.Line != 2+strings.Count(c.lines, "\n") || !strings.Contains(errs[0].Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.lines, errs, c.want)
		}
	}
	if _, errs := records(strings.NewReader(`{"schema":"phpwhy/capture/v9"}` + "\n")); len(errs) != 1 || !errors.Is(errs[0], ErrNewer) {
		t.Error(errs)
	}
}

func TestTheQuickReaderReadsWhatTheDecoderDoes(t *testing.T) {
	for _, c := range []struct {
		line  string
		quick bool
	}{
		{`{"event":{"t_us":12,"kind":"sample","tid":3,"stack":4,"process":5,"round":6}}`, true},
		{`{"event":{"t_us":0,"kind":"sample","tid":0,"stack":0,"process":0,"round":1}}`, true},
		{`{"event":{"t_us":01,"kind":"sample","tid":3,"stack":4,"process":5,"round":6}}`, false},
		{`{"event":{"t_us":,"kind":"sample","tid":3,"stack":4,"process":5,"round":6}}`, false},
		{`{"event":{"t_us":12,"kind":"stop","tid":3,"stack":4,"process":5,"round":6}}`, false},
		{`{"event":{"t_us":12,"kind":"sample","tid":3,"stack":4,"process":5,"round":6}} `, false},
		{`{"event":{"t_us":-12,"kind":"sample","tid":3,"stack":4,"process":5,"round":6}}`, false},
		{`{"event":{"t_us":1234567890123456789,"kind":"sample","tid":3,"stack":4,"process":5,"round":6}}`, false},
	} {
		got, ok := quickEvent([]byte(c.line))
		if ok != c.quick {
			t.Errorf("%s: %v", c.line, ok)
			continue
		}
		if !ok {
			continue
		}
		l, err := decodeMany([]byte(c.line))
		if err != nil {
			t.Fatal(err)
		}
		rec, err := l.record(0)
		if err != nil || cmp.Diff(rec.Event, &got) != "" {
			t.Errorf("%s: %+v, %+v, %v", c.line, got, rec.Event, err)
		}
	}
}

// FuzzStream: whatever the bytes, reading ends, and what was read can be written.
func FuzzStream(f *testing.F) {
	var b bytes.Buffer
	many(f, &b)
	f.Add(b.Bytes())
	b.Reset()
	if err := Write(&b, sampleCapture()); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, in []byte) {
		recs, _ := records(bytes.NewReader(in))
		if len(recs) > 3*(bytes.Count(in, []byte("\n"))+2) {
			t.Errorf("%d records of %d bytes", len(recs), len(in))
		}
		for _, r := range recs {
			if r.Stack != nil && len(r.Stack.Places) != len(r.Stack.Frames) {
				t.Error(fmt.Sprint(r.Stack))
			}
		}
	})
}
