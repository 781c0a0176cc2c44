package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/testphp"
)

func newBench(t *testing.T) *bench {
	t.Helper()
	return &bench{
		config: config{root: testphp.Root(t), php: testphp.Stripped(t), runs: 1, rounds: 1, stream: time.Second},
		tmp:    t.TempDir(), out: io.Discard, errs: io.Discard,
	}
}

func TestSummaryIsOfMeasuredValues(t *testing.T) {
	for _, c := range []struct {
		in   []int
		want summary[int]
	}{
		{[]int{5}, summary[int]{5, 5, 5}},
		{[]int{9, 1, 5}, summary[int]{5, 1, 9}},
		{[]int{4, 1, 3, 2}, summary[int]{2, 1, 4}},
	} {
		if got := summarize(c.in); got != c.want {
			t.Errorf("%v: %+v, want %+v", c.in, got, c.want)
		}
	}
}

func TestTableEscapesBars(t *testing.T) {
	var b strings.Builder
	if err := table(&b, [][]string{{"a", "b"}, {"x|y", "two\nlines"}}); err != nil {
		t.Fatal(err)
	}
	if want := "| a | b |\n| --- | --- |\n| x\\|y | two lines |\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestToolThatAnswersWronglyIsNoFigure(t *testing.T) {
	b := newBench(t)
	for name, argv := range map[string][]string{
		"no execute_ex": {"/bin/echo", "PID"},
		"exit status":   {"/bin/sh", "-c", "echo execute_ex; exit 3"},
		"no such file":  {"/nonexistent"},
	} {
		if o, err := b.runTool(t.Context(), tool{argv: argv}, "1", "execute_ex"); err == nil {
			t.Errorf("%s: %+v", name, o)
		}
	}
	if o, err := b.runTool(t.Context(), tool{argv: []string{"/bin/echo", "x-PID"}}, "12", "x-12"); err != nil || o.wall <= 0 || o.rssKiB <= 0 {
		t.Errorf("a right answer: %+v, %v", o, err)
	}
}

func TestColdToolFindsAnEmptyCache(t *testing.T) {
	b := newBench(t)
	touch := []string{"/bin/sh", "-c", `mkdir -p "$XDG_CACHE_HOME"; ls "$XDG_CACHE_HOME"; echo ran; : >"$XDG_CACHE_HOME/index"`}
	for _, c := range []struct {
		cold bool
		must string
	}{{true, "ran"}, {false, "index"}} {
		if _, err := b.runTool(t.Context(), tool{argv: touch, cold: c.cold}, "1", c.must); err != nil {
			t.Errorf("cold=%v: %v", c.cold, err)
		}
	}
	see := []string{"/bin/sh", "-c", `ls "$XDG_CACHE_HOME" 2>/dev/null; echo end`}
	if _, err := b.runTool(t.Context(), tool{argv: see, cold: true}, "1", "index"); err == nil {
		t.Error("a cold run saw the index of an earlier one")
	}
}

// Stopping the worker for a time must show as a gap of that time: else the
// table of pauses would praise everything.
func TestGapWorkerMeasuresAPause(t *testing.T) {
	const pause = 300 * time.Millisecond
	b := newBench(t)
	w, err := b.start(t.Context(), filepath.Join(b.root, "internal", "bench", "testdata", "gap.php"), "1000")
	if err != nil {
		t.Fatal(err)
	}
	defer w.kill()
	time.Sleep(100 * time.Millisecond)
	for _, s := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGCONT} {
		if err := w.cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		time.Sleep(pause)
	}
	got, err := w.longestGap()
	if err != nil || got < pause-10*time.Millisecond || got > pause+400*time.Millisecond {
		t.Errorf("a pause of %v was measured as %v (%v)", pause, got, err)
	}
}

func TestStreamedStacksAreCounted(t *testing.T) {
	strace := testphp.Require(t, "strace")
	b := newBench(t)
	w, err := b.concat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer w.kill()
	r, err := b.straceStops("-k")(t.Context(), w)
	if err != nil || r.n < 10 || r.dur < b.stream {
		t.Errorf("%s: %+v, %v", strace, r, err)
	}
}

func TestPhpwhysFailureFailsTheRun(t *testing.T) {
	php := testphp.Stripped(t)
	missing := filepath.Join(t.TempDir(), "phpwhy")
	var out strings.Builder
	err := run(context.Background(), []string{"-root", testphp.Root(t), "-php", php, "-phpwhy", missing, "-n", "1", "-only", "dump"}, &out, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "phpwhy dump") {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(out.String(), "failed: ") {
		t.Errorf("the table hides it:\n%s", out.String())
	}
	if _, err := os.Stat(missing); err == nil {
		t.Error("the run made the binary")
	}
}
