package zend_test

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/ptrace"
	"github.com/phpwhy/phpwhy/internal/target"
	"github.com/phpwhy/phpwhy/internal/testphp"
	"github.com/phpwhy/phpwhy/internal/zend"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// recording is the memory of a real process that reading it leads to.
type recording struct {
	name   string
	rt     *zend.Runtime
	th     *zend.Thread
	tls    remote.Addr
	snap   *target.Snapshot
	pages  []remote.Addr
	reads  []remote.Region // what reading asks for
	frames int
}

// spy notes what is read.
type spy struct {
	r     remote.Reader
	reads map[remote.Region]bool
}

func (s *spy) ReadMemory(p []byte, at remote.Addr) (int, error) {
	s.reads[remote.Region{At: at, Len: len(p)}] = true
	return s.r.ReadMemory(p, at)
}

const fuzzPage = 4096

// record reads everything there is to read of a blocked script.
func record(t testing.TB, b testphp.Build, script string) *recording {
	t.Helper()
	live, rt, _ := blocked(t, b, script)
	rec := &recording{name: b.Name + " " + script, rt: rt, snap: target.NewSnapshot(live.Mem)}
	_, err := ptrace.Freeze(context.Background(), live.PID, func(ts []ptrace.ThreadStop) error {
		rec.tls = ts[0].Regs.TLS
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s := &spy{rec.snap, make(map[remote.Region]bool)}
	if rec.th, err = rt.Thread(s, rec.tls); err != nil {
		t.Fatal(err)
	}
	rec.th.Prefetch(rec.snap)
	rec.frames = len(readAll(rec, s).Frames)
	rec.snap.Freeze()
	seen := make(map[remote.Addr]bool)
	for g := range s.reads {
		for at := g.At &^ (fuzzPage - 1); at < g.At+remote.Addr(g.Len); at += fuzzPage {
			if _, err := remote.Uint8(rec.snap, at); err == nil && !seen[at] {
				seen[at] = true
				rec.pages = append(rec.pages, at)
			}
		}
		rec.reads = append(rec.reads, g)
	}
	slices.Sort(rec.pages)
	slices.SortFunc(rec.reads, func(a, b remote.Region) int {
		if a.At != b.At {
			return int(int64(a.At - b.At))
		}
		return a.Len - b.Len
	})
	return rec
}

// readAll does all that an observation does.
func readAll(rec *recording, r remote.Reader) zend.Stack {
	th, err := rec.rt.Thread(r, rec.tls)
	if err != nil {
		th = rec.th // go on as if its place were known
	}
	th.Prefetch(r)
	s := th.Walk(r)
	_, _ = th.Request(r)
	_, _ = th.Memory(r)
	_, _ = th.GC(r)
	_, _ = th.Output(r)
	_, _ = th.Allocator(r)
	_ = th.Fibers(r)
	d, _ := th.Depth(r)
	var outermost *zend.Frame
	if n := len(d.Outer); n > 0 {
		outermost = &d.Outer[n-1]
	}
	_ = th.Phase(r, outermost)
	_, _ = th.CallState(r, s.Frames)
	_, _ = th.LongestArgument(r, r, s.Frames)
	_, _ = th.WorstTable(r, r, []remote.Addr{0})
	for i := range s.Frames {
		f := &s.Frames[i]
		_, _, _ = rec.rt.LineAt(r, f, f.Func)
		_, _ = rec.rt.Frameless(r, r, f)
	}
	return s
}

// patches is a recording with some of its bytes changed, and counts what is
// read of it.
type patches struct {
	rec   *recording
	pages map[remote.Addr]*[fuzzPage]byte
	calls int
	bytes int
}

func (p *patches) put(at remote.Addr, b byte, xor bool) {
	page := at &^ (fuzzPage - 1)
	c := p.pages[page]
	if c == nil {
		c = new([fuzzPage]byte)
		if remote.ReadFull(p.rec.snap, c[:], page) != nil {
			return
		}
		p.pages[page] = c
	}
	if xor {
		b ^= c[at-page]
	}
	c[at-page] = b
}

func (p *patches) ReadMemory(out []byte, at remote.Addr) (int, error) {
	p.calls++
	p.bytes += len(out)
	n, err := p.rec.snap.ReadMemory(out, at)
	for i := 0; i < n; {
		a := at + remote.Addr(i)
		page := a &^ (fuzzPage - 1)
		end := min(n, i+int(page+fuzzPage-a))
		if c := p.pages[page]; c != nil {
			copy(out[i:end], c[a-page:])
		}
		i = end
	}
	return n, err
}

// patchSize is how many bytes of input make one change: how, where, what.
const patchSize = 13

// apply changes memory as the input says. Half of the changes hit what is
// read in a healthy process, and half of those make a pointer to it.
func (p *patches) apply(in []byte) {
	rec := p.rec
	for n := 0; len(in) >= patchSize && n < 64; n++ {
		how, where, off, what := in[0], binary.LittleEndian.Uint16(in[1:]), binary.LittleEndian.Uint16(in[3:]), in[5:13]
		in = in[patchSize:]
		at := rec.pages[int(where)%len(rec.pages)] + remote.Addr(off%fuzzPage)
		if how&1 != 0 {
			g := rec.reads[int(where)%len(rec.reads)]
			at = g.At + remote.Addr(int(off)%g.Len)
		}
		if how&2 != 0 {
			at &^= 7
		}
		var b [8]byte
		copy(b[:], what)
		if how&4 != 0 {
			g := rec.reads[int(binary.LittleEndian.Uint32(what))%len(rec.reads)]
			binary.LittleEndian.PutUint64(b[:], uint64(g.At)+uint64(what[4]))
		}
		for i := range 1 + int(how>>3)&7 {
			p.put(at+remote.Addr(i), b[i], how&0x40 != 0)
		}
	}
}

// What reading a broken heap may cost: calls of the reader and bytes.
const maxFuzzCalls, maxFuzzBytes, maxFuzzTime = 40_000, 64 << 20, 2 * time.Second

// FuzzHeap changes any of the memory that reading a real process leads to:
// whatever it holds, reading ends soon, without a panic, and what it returns
// is bounded.
func FuzzHeap(f *testing.F) {
	f.Setenv("PHPWHY_DEPTH", "100")
	var recs []*recording
	for _, b := range fuzzBuilds(f) {
		runs := testphp.BacktraceScripts(f, b.Version(f))
		for _, script := range []string{"callbacks", "delegation", "generators", "unwinding", "fiber", "_engine"} {
			if !slices.ContainsFunc(runs, func(p string) bool { return script[0] == '_' || strings.HasSuffix(p, "/"+script+".php") }) {
				continue // needs a later PHP
			}
			recs = append(recs, record(f, b, "testdata/"+script+".php"))
		}
	}
	for i, rec := range recs {
		if s := readAll(rec, rec.snap); s.Err != nil || len(s.Frames) != rec.frames || rec.frames < 3 {
			f.Fatalf("%s: %d frames, %v", rec.name, len(s.Frames), s.Err)
		}
		// A pointer to the beginning of each thing that is read.
		for n := range 8 {
			in := make([]byte, patchSize)
			in[0] = 1 | 2 | 4 | 7<<3
			binary.LittleEndian.PutUint16(in[1:], uint16(n*97))
			binary.LittleEndian.PutUint32(in[5:], uint32(n*31))
			f.Add(uint8(i), in)
		}
		f.Add(uint8(i), []byte{})
	}
	f.Fuzz(func(t *testing.T, which uint8, in []byte) {
		rec := recs[int(which)%len(recs)]
		p := &patches{rec: rec, pages: make(map[remote.Addr]*[fuzzPage]byte)}
		p.apply(in)
		start := time.Now()
		s := readAll(rec, p)
		sampled, torn := rec.th.Sample(p, 2)
		if took := time.Since(start); p.calls > maxFuzzCalls || p.bytes > maxFuzzBytes || took > maxFuzzTime {
			t.Fatalf("%s: %d reads, %d bytes, %s", rec.name, p.calls, p.bytes, took)
		}
		checkBounds(t, &s)
		checkBounds(t, &sampled)
		if len(p.pages) == 0 && (s.Err != nil || len(s.Frames) != rec.frames) {
			t.Fatalf("%s: unchanged, %d frames, %v", rec.name, len(s.Frames), s.Err)
		}
		// Memory that holds still is not torn: what can't be sampled is broken.
		if errors.Is(sampled.Err, zend.ErrTorn) && (torn != 2 || len(sampled.Frames) != 0) {
			t.Fatalf("%s: %d tries, %d frames", rec.name, torn, len(sampled.Frames))
		}
	})
}

// fuzzBuilds are of different kinds: without and with DWARF, thread-safe, and
// PHP 5 where there is one.
func fuzzBuilds(f *testing.F) []testphp.Build {
	out := []testphp.Build{builds[0], builds[2]}
	for _, b := range testphp.AllBuilds(f) {
		if b.Name == "8.4-zts" || b.Name == "5.6-nts" {
			out = append(out, b)
		}
	}
	return out
}

func checkBounds(t *testing.T, s *zend.Stack) {
	t.Helper()
	const name = 4096 + len("…")
	if len(s.Frames) > zend.MaxFrames+1 {
		t.Fatalf("%d frames", len(s.Frames))
	}
	for i := range s.Frames {
		f := &s.Frames[i]
		if len(f.Function) > name || len(f.Class) > name || len(f.File) > name || f.Line < 0 || f.Line > 1<<28 {
			t.Fatalf("frame %d: names of %d, %d and %d bytes, line %d", i, len(f.Function), len(f.Class), len(f.File), f.Line)
		}
	}
	if s.Err != nil {
		if text := s.Err.Error(); text == "" || len(text) > 1024 || strings.Contains(text, "\n") {
			t.Fatalf("an error of %d bytes: %q", len(text), text)
		}
	}
}
