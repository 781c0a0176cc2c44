package triage

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/rules"
)

var web1 = capture.Header{Host: capture.Host{Name: "web1"}, Started: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)}

// doing is one look at a worker that is in an internal function called at a line.
func doing(internal, file string, line int, facts map[string]any) *capture.Capture {
	return &capture.Capture{
		Target: capture.Target{SAPI: "fpm-fcgi", PHPVersion: "8.2.36", Request: &capture.Request{Method: "GET", URI: "/x?secret=1", AgeMS: new(int64(line) * 1000)}},
		Stacks: []stack.Stack{{End: stack.Root, Frames: []stack.Frame{
			{Kind: stack.Native, Function: internal, Module: "libc.so.6", PC: 0x1000, How: "entry"},
			{Kind: stack.PHP, Function: internal, Internal: true},
			{Kind: stack.PHP, Function: "work", File: file, Line: line},
			{Kind: stack.Native, Function: "main", Module: "php", PC: 0x2000, How: "cfi"},
		}}},
		Events:      []capture.Event{{Kind: capture.Sample, TID: 1}},
		Observation: capture.Observation{Engine: "none", Samples: 1, PausedUSMax: 100, PausedUSTotal: 100},
		Facts:       facts,
	}
}

func waits(pid int) map[string]any {
	return map[string]any{"proc.state": "S", "lock.kind": "flock", "lock.path": "/srv/x.lock", "lock.holder_pid": int64(pid)}
}

func (b *Builder) see(h capture.Header, pid, round int, c *capture.Capture) {
	b.Capture(h, pid, uint64(pid), "www", round, time.Duration(round)*time.Second, c)
}

func TestWaitersAreJoinedToTheirHoldersOwnLine(t *testing.T) {
	b := NewBuilder()
	b.see(web1, 812, 1, doing("sleep", "Session.php", 88, map[string]any{"proc.state": "S"}))
	for pid := 1; pid <= 37; pid++ {
		b.see(web1, pid, 1, doing("flock", "Lock.php", 5, waits(812)))
	}
	for pid := 900; pid < 902; pid++ {
		b.see(web1, pid, 1, doing("usleep", "Other.php", 7, nil))
	}
	m := b.Model(nil, time.Time{})
	if want := "37 of 40 workers wait for flock on /srv/x.lock, held by pid 812, which is in sleep() at Session.php:88"; m.Summary != want {
		t.Errorf("%s\nwant %s", m.Summary, want)
	}
	if len(m.Groups) != 3 || len(m.Groups[0].Workers) != 37 || len(m.Groups[0].Waits) != 1 {
		t.Fatalf("%+v", m.Groups)
	}
	g := m.Groups[0]
	w := g.Waits[0]
	if m.Workers[w.Holder].PID != 812 || len(w.Workers) != 37 || w.Deadlock || w.HolderURI != "GET /x" {
		t.Errorf("%+v", w)
	}
	if len(g.URIs) != 1 || g.URIs[0] != (URICount{"GET", "/x", 37}) || *g.Ages != (Ages{5000, 5000, 5000}) {
		t.Errorf("%+v %+v", g.URIs, g.Ages)
	}
}

func TestAnAgeThatNobodyKnowsIsNone(t *testing.T) {
	b := NewBuilder()
	for pid, line := range map[int]int{1: 0, 2: 300, 3: 300} {
		c := doing("flock", "Lock.php", 5, nil)
		if c.Target.Request.AgeMS = new(int64(line) * 1000); line == 0 {
			c.Target.Request.AgeMS = nil
		}
		b.see(web1, pid, 1, c)
	}
	if g := b.Model(nil, time.Time{}).Groups[0]; g.Ages == nil || *g.Ages != (Ages{300_000, 300_000, 300_000}) {
		t.Errorf("%+v", g.Ages)
	}
	b = NewBuilder()
	c := doing("flock", "Lock.php", 5, nil)
	c.Target.Request.AgeMS = nil
	b.see(web1, 1, 1, c)
	if g := b.Model(nil, time.Time{}).Groups[0]; g.Ages != nil {
		t.Errorf("%+v", g.Ages)
	}
}

func TestHoldersThatWaitAreFollowed(t *testing.T) {
	b := NewBuilder()
	b.see(web1, 1, 1, doing("flock", "a.php", 1, waits(2)))
	b.see(web1, 2, 1, doing("flock", "b.php", 2, waits(3)))
	b.see(web1, 3, 1, doing("sleep", "c.php", 3, nil))
	m := b.Model(nil, time.Time{})
	w := m.Groups[m.Workers[0].Group].Waits[0]
	if !slices.Equal(w.Chain, []int{1, 2}) || w.Deadlock || !strings.Contains(m.Waiting(&w), "at the end is pid 3") {
		t.Errorf("%+v: %s", w, m.Waiting(&w))
	}

	b.see(web1, 3, 2, doing("flock", "c.php", 3, waits(1)))
	m = b.Model(nil, time.Time{})
	for i := range m.Workers {
		w := m.Groups[m.Workers[i].Group].Waits[0]
		if !w.Deadlock || len(w.Chain) != 3 || !strings.Contains(m.Waiting(&w), "in a circle") {
			t.Errorf("%+v: %s", w, m.Waiting(&w))
		}
	}
}

func TestAHolderOfAnotherHostOrOneThatWasNotSeenIsNotJoined(t *testing.T) {
	b := NewBuilder()
	b.see(web1, 1, 1, doing("flock", "a.php", 1, waits(812)))
	b.see(capture.Header{Host: capture.Host{Name: "web2"}}, 812, 1, doing("sleep", "b.php", 2, nil))
	m := b.Model(nil, time.Time{})
	w := m.Groups[m.Workers[0].Group].Waits[0]
	if w.Holder != -1 || w.HolderPID != 812 || !strings.Contains(m.Summary, "not looked at") {
		t.Errorf("%+v: %s", w, m.Summary)
	}
}

func TestRulesGroupByTheirPlaceAndTheHealthyComeLast(t *testing.T) {
	set, problems := rules.Load(fstest.MapFS{"a.yaml": {Data: []byte(`
schema: phpwhy/rule/v1
id: wait.sleep
revision: 1
title: A worker sleeps
severity: low
maturity: stable
kind: cause
match:
  all:
    - in: samples
      share: 0.8
      php: |
        leaf internal sleep
        user as=site
message: "{{site}} sleeps"
explain: It sleeps.
fix: Do not.
`)}, "b.yaml": {Data: []byte(`
schema: phpwhy/rule/v1
id: idle.poll
revision: 1
title: The worker is idle
severity: info
maturity: stable
kind: benign
match:
  all:
    - in: samples
      share: 0.8
      stack:
        any: |
          leaf poll
message: "idle"
explain: It waits.
fix: Nothing.
`)}})
	if set == nil {
		t.Fatal(problems)
	}
	b := NewBuilder()
	for pid := 1; pid <= 6; pid++ {
		b.see(web1, pid, 1, doing("poll", "pool.php", 3, nil))
	}
	for pid := 10; pid <= 12; pid++ {
		b.see(web1, pid, 1, doing("sleep", "a.php", 4+pid%2, nil))
	}
	b.see(web1, 20, 1, doing("usleep", "c.php", 9, nil))
	m := b.Model(set, time.Time{})
	var got []string
	for _, g := range m.Groups {
		got = append(got, fmt.Sprintf("%s %d:%d", g.Rule, g.Site.Line, len(g.Workers)))
	}
	if want := []string{"wait.sleep 4:2", "wait.sleep 5:1", " 9:1", "idle.poll 0:6"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q (%v)", got, want, problems)
	}
	if len(m.Findings) != 2 || m.Findings[0].Rule != "idle.poll" || len(m.Findings[1].Workers) != 3 {
		t.Errorf("%+v", m.Findings)
	}
}

func TestTheTimelineSaysWhoDidWhatInEachRound(t *testing.T) {
	b := NewBuilder()
	for round := 1; round <= 3; round++ {
		b.see(web1, 1, round, doing("sleep", "a.php", 1, nil))
		b.see(web1, 2, round, doing("sleep", "a.php", 1, nil))
	}
	b.see(web1, 3, 3, doing("usleep", "b.php", 1, nil))
	b.Gone(web1, 2, 2)
	m := b.Model(nil, time.Time{})
	if len(m.Timeline) != 3 || m.Rounds != 3 || m.Looks != 7 || m.Events != 7 {
		t.Fatalf("%+v", m)
	}
	for i, want := range [][]int{{2, 0}, {2, 0}, {2, 1}} {
		k := m.Timeline[i]
		if !slices.Equal(k.Groups, want) || k.Workers != want[0]+want[1] || !k.At.Equal(web1.Started.Add(time.Duration(i+1)*time.Second)) {
			t.Errorf("%+v, want %v", k, want)
		}
	}
	if !m.Workers[1].Ended || m.Workers[0].Ended || m.Stacks[0].Count != 6 || len(m.Stacks[0].Seen) != 2 {
		t.Errorf("%+v %+v", m.Workers, m.Stacks[0])
	}
}

// write puts looks of n workers into a file: rounds rounds of each events.
func write(t testing.TB, path, host string, n, rounds, each int) {
	t.Helper()
	o, err := capture.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	h := web1
	h.Host.Name = host
	w, err := capture.NewStreamWriter(o, h)
	if err != nil {
		t.Fatal(err)
	}
	for round := 1; round <= rounds; round++ {
		for pid := 1; pid <= n; pid++ {
			c := doing("flock", "a.php", 1+pid%7, waits(1))
			c.Events = nil
			for i := range each {
				c.Events = append(c.Events, capture.Event{At: time.Duration(i) * time.Millisecond, Kind: capture.Sample, TID: pid})
			}
			c.Observation.Samples = each
			id, err := w.Process(pid, uint64(pid), "www", c.Target)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.Look(id, round, time.Duration(round)*time.Second, c); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.End(rounds, "done"); err != nil {
		t.Fatal(err)
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestAMillionEventsOfThreeHostsAreMergedInBoundedMemory: what is kept depends on
// workers and distinct stacks, not on events.
func TestAMillionEventsOfThreeHostsAreMergedInBoundedMemory(t *testing.T) {
	const workers, rounds, each, hosts = 40, 24, 360, 3
	dir := t.TempDir()
	b := NewBuilder()
	var most uint64
	from := time.Now()
	for i := range hosts {
		path := filepath.Join(dir, fmt.Sprintf("h%d.zst", i))
		write(t, path, fmt.Sprint("web", i), workers, rounds, each)
		r, err := capture.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Read(path, capture.NewStream(r)); err != nil {
			t.Fatal(err)
		}
		_ = r.Close()
		runtime.GC()
		var ms runtime.MemStats
		runtime.ReadMemStats(&ms)
		most = max(most, ms.HeapAlloc)
	}
	m := b.Model(nil, time.Time{})
	if m.Events != hosts*workers*rounds*each || len(m.Workers) != hosts*workers || len(m.Hosts) != hosts || len(m.Stacks) != 7 {
		t.Errorf("%d events of %d workers on %d hosts, %d stacks", m.Events, len(m.Workers), len(m.Hosts), len(m.Stacks))
	}
	rss, _ := os.ReadFile("/proc/self/status")
	i := bytes.Index(rss, []byte("VmHWM"))
	t.Logf("%d events written, read and merged in %v; live heap %d MiB; %s", m.Events, time.Since(from), most>>20, bytes.SplitN(rss[i:], []byte("\n"), 2)[0])
	if most > 64<<20 {
		t.Errorf("%d MiB of heap are in use", most>>20)
	}
}

func TestTooManyStacksAreCountedNotKept(t *testing.T) {
	b := NewBuilder()
	b.stacks.bytes = MaxStackBytes - 2000
	for line := 1; line <= 5; line++ {
		b.see(web1, line, 1, doing("sleep", "a.php", line, nil))
	}
	m := b.Model(nil, time.Time{})
	if len(m.Stacks) != 1 || len(m.Workers) != 5 || len(m.Notes) != 1 || !strings.HasPrefix(m.Notes[0], "4 stacks") {
		t.Errorf("%d stacks, %d workers, %q", len(m.Stacks), len(m.Workers), m.Notes)
	}
}

func TestNothingIsAModelToo(t *testing.T) {
	b := NewBuilder()
	for in, want := range map[string]string{
		"":                                      "file is empty",
		"\x00\x01junk":                          "file is no phpwhy capture",
		"junk\njunk\n":                          "file is no phpwhy capture",
		"{}\n":                                  "file is no phpwhy capture",
		`{"schema":"phpwhy/capture/v9"}` + "\n": "file was written by a newer phpwhy",
	} {
		if err := b.Read("file", capture.NewStream(strings.NewReader(in))); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", in, err, want)
		}
	}
	if m := b.Model(nil, time.Time{}); m.Summary != "no worker was looked at" || m.Groups == nil || m.Timeline == nil {
		t.Errorf("%+v", m)
	}
}

// read adds a file's capture.
func read(t *testing.T, b *Builder, path string) {
	t.Helper()
	r, err := capture.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := b.Read(path, capture.NewStream(r)); err != nil {
		t.Fatal(err)
	}
}

func TestCapturesOfOneHostAddUpAndOneThatIsNamedTwiceCountsOnce(t *testing.T) {
	a, later := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	write(t, a, "web1", 3, 2, 1)
	was := web1
	web1.Started = web1.Started.Add(time.Hour)
	write(t, later, "web1", 3, 4, 1)
	web1 = was
	b := NewBuilder()
	read(t, b, a)
	read(t, b, later)
	m := b.Model(nil, time.Time{})
	if m.Rounds != 6 || m.Looks != 18 || len(m.Workers) != 3 || len(m.Timeline) != 6 || len(m.Notes) != 0 {
		t.Errorf("%d rounds, %d looks at %d workers, %d ticks, %q", m.Rounds, m.Looks, len(m.Workers), len(m.Timeline), m.Notes)
	}
	for i, k := range m.Timeline {
		if k.Workers != 3 || i > 0 && !k.At.After(m.Timeline[i-1].At) {
			t.Errorf("%+v", k)
		}
	}
	read(t, b, a)
	m = b.Model(nil, time.Time{})
	if m.Rounds != 6 || m.Looks != 18 || m.Events != 18 || len(m.Sources) != 3 || len(m.Notes) != 1 || !strings.Contains(m.Notes[0], "count once") {
		t.Errorf("again: %d rounds, %d looks, %d events, %q", m.Rounds, m.Looks, m.Events, m.Notes)
	}
}

func TestWhatPrecedesDamageIsReported(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	write(t, path, "web1", 2, 3, 1)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	bad := len(lines) - 4
	lines[bad] = []byte("\x00\xff}{\n")
	b := NewBuilder()
	err = b.Read("f", capture.NewStream(bytes.NewReader(bytes.Join(lines, nil))))
	var damaged *DamagedError
	if !errors.As(err, &damaged) || !strings.HasPrefix(err.Error(), fmt.Sprintf("f: line %d is damaged", bad+1)) {
		t.Fatal(err)
	}
	m := b.Model(nil, time.Time{})
	if m.Looks < 4 || len(m.Workers) != 2 || !strings.HasPrefix(m.Sources[0].Damage, fmt.Sprintf("line %d: ", bad+1)) {
		t.Errorf("%d looks at %d workers, %+v", m.Looks, len(m.Workers), m.Sources)
	}
}

func TestGroupsAreOrderedByWhatTheyMatter(t *testing.T) {
	b := NewBuilder()
	for pid := 1; pid <= 3; pid++ {
		b.see(web1, pid, 1, doing("usleep", "a.php", 1, map[string]any{"proc.state": "S"}))
	}
	b.see(web1, 10, 1, doing("flock", "b.php", 2, waits(1)))
	m := b.Model(nil, time.Time{})
	if m.Groups[0].Site.File != "b.php" || m.Summary != "1 of 4 workers waits for flock on /srv/x.lock, held by pid 1, which is in usleep() at a.php:1" {
		t.Errorf("%+v: %s", m.Groups[0], m.Summary)
	}
	c := waits(1)
	c["lock.holder_cmdline"], c["lock.holder_pid"] = "php-fpm: pool other", int64(99)
	b.see(capture.Header{Host: capture.Host{Name: "web2"}}, 11, 1, doing("flock", "c.php", 2, c))
	b.see(web1, 12, 1, doing("fgets", "d.php", 2, map[string]any{"proc.state": "S", "fd.kind": "pipe", "fd.path": "pipe:[1]", "fd.held_by": int64(3)}))
	m = b.Model(nil, time.Time{})
	var said []string
	for i := range m.Groups {
		for j := range m.Groups[i].Waits {
			said = append(said, m.Waiting(&m.Groups[i].Waits[j]))
		}
	}
	for _, want := range []string{
		"waits for flock on /srv/x.lock, held by pid web2:99 (php-fpm: pool other), which was not looked at",
		"waits for pipe on pipe:[1], at whose other end is pid web1:3, which is in usleep() at a.php:1",
	} {
		if !slices.Contains(said, want) {
			t.Errorf("no %q in %q", want, said)
		}
	}
}
