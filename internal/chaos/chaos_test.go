package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/testphp"
)

// newChaos prepares rounds on Debian's PHP. Without a phpwhy to test, any file
// stands for it.
func newChaos(t *testing.T, phpwhy string) *config {
	t.Helper()
	testphp.Require(t, "gcc")
	c, err := parse([]string{"-php", testphp.Stripped(t), "-fpm", testphp.StrippedFPM(t), "-phpwhy", phpwhy}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c
}

func startIn(t *testing.T, c *config, k kind) *worker {
	t.Helper()
	w, err := c.startWorker(t.Context(), k, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.kill)
	return w
}

// short is how long rounds are played in make test; make chaos plays more.
const short = 30 * time.Second

func TestPhpwhyLeavesWorkersAsTheyWere(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "phpwhy")
	if out, err := exec.Command("go", "build", "-o", bin, "../../cmd/phpwhy").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	c := newChaos(t, bin)
	c.limit = short
	results, err := c.play(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range results {
		if !o.failed() {
			continue
		}
		t.Errorf("%s, %s: %s\n  %s", o.engine, o.String(), o.what(), strings.Join(o.notes, "\n  "))
	}
	if len(results) < 2*len(engines) {
		t.Errorf("%d rounds in %v", len(results), short)
	}
	t.Logf("%d rounds", len(results))
}

// Each kind of worker does what it is asked to, with nobody attached.
func TestWorkersObey(t *testing.T) {
	c := newChaos(t, "/bin/true")
	for _, k := range []kind{kindLoop, kindThreads, kindMasked, kindConcat} {
		t.Run(string(k), func(t *testing.T) {
			w := startIn(t, c, k)
			for _, tt := range []struct {
				name string
				cmd  uint64
				w    word
				want uint64
			}{
				{"fork", cmdFork, wChildren, 1}, {"spawn", cmdSpawn, wChildren, 3},
				{"threads", cmdThreads, wThreads, 4}, {"exec", cmdExec, wExecs, 1},
			} {
				if err := w.page.set(wCommand, tt.cmd); err != nil {
					t.Fatal(err)
				}
				if err := until(t.Context(), readyTimeout, func() bool { return w.page.get(tt.w) == tt.want }); err != nil {
					t.Fatalf("%s: %d, want %d", tt.name, w.page.get(tt.w), tt.want)
				}
				if !w.progress(t.Context(), 50) {
					t.Fatalf("%s: %s", tt.name, w.fate())
				}
			}
			if n := w.page.get(wBad) + w.page.get(wFailed) + w.page.get(wInherited); n != 0 {
				t.Errorf("%d results wrong", n)
			}
			if err := w.page.set(wCommand, cmdExit); err != nil {
				t.Fatal(err)
			}
			<-w.done
			if w.cmd.ProcessState.ExitCode() != exitStatus {
				t.Errorf("%v", w.cmd.ProcessState)
			}
		})
	}
	t.Run("master", func(t *testing.T) {
		if !startIn(t, c, kindMaster).progress(t.Context(), 1) {
			t.Error("it does not replace its child")
		}
	})
}

func TestDamageIsSeen(t *testing.T) {
	c := newChaos(t, "/bin/true")
	c.workerLimit = time.Second
	look := func(w *worker, ev *event, before func(r *round)) *outcome {
		r := &round{config: c, plan: plan{event: ev}, out: &outcome{}, w: w, exe: "/nowhere", phpwhy: exec.Command("/bin/true")}
		if err := r.phpwhy.Run(); err != nil {
			t.Fatal(err)
		}
		r.settle = 100 * time.Millisecond
		r.masks, r.pages = masks(w.pid), anonymous(w.pid)
		before(r)
		r.check(t.Context())
		return r.out
	}
	for _, tt := range []struct {
		name   string
		event  string
		damage func(r *round)
		want   string
	}{
		{"nothing", "nothing", func(*round) {}, ""},
		{"stopped", "nothing", func(r *round) { _ = syscall.Kill(r.w.pid, syscall.SIGSTOP) }, "left stopped, worker lost"},
		{"running that was stopped", "SIGSTOP, phpwhy SIGTERM", func(*round) {}, "left stopped"},
		{"dead", "nothing", func(r *round) { r.w.kill() }, "worker lost"},
		{"alive that was to end", "worker exits", func(*round) {}, "left stopped"},
		{"ended in another way", "worker exits", func(r *round) { _ = syscall.Kill(r.w.pid, syscall.SIGTERM) }, "worker lost"},
		{"code changed", "nothing", func(r *round) { poke(t, r.w.pid) }, "text changed"},
		{"page left", "nothing", func(r *round) { r.pages = -1 }, "left behind"},
		{"mask changed", "nothing", func(r *round) { r.masks[fmt.Sprint(r.w.pid)] = "1" }, "signal mask changed"},
		{"signal lost", "nothing", func(r *round) { r.stream = counted(r.w, 1, 2); r.stream.queued = 3 }, "1 signals lost"},
		{"signal out of order", "nothing", func(r *round) { r.stream = counted(r.w, 2, 1) }, "2 signals lost"},
		{"wrong result", "nothing", func(r *round) { _ = r.w.page.set(wBad, 1) }, "wrong results"},
		{"process left", "nothing", func(r *round) { r.exe = "/bin/sleep" }, "stray process"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := startIn(t, c, kindLoop)
			o := look(w, eventNamed(tt.event), func(r *round) {
				tt.damage(r)
				if tt.want == "stray process" {
					r.exe = stray(t)
				}
			})
			for _, w := range strings.Split(tt.want, ", ") {
				if !strings.Contains(o.what(), w) || tt.want == "" && o.failed() {
					t.Errorf("%q, want %q; %q", o.what(), tt.want, o.notes)
				}
			}
		})
	}
}

// counted sends queued signals with the given values.
func counted(w *worker, values ...int32) *stream {
	s := &stream{w: w, quit: make(chan struct{}), done: make(chan struct{}), queued: uint64(len(values))}
	close(s.done)
	for i, v := range values {
		_ = sigqueue(w.pid, queued, v)
		_ = until(context.Background(), w.limit, func() bool { return w.page.get(wQueued) == uint64(i+1) })
	}
	return s
}

// stray starts a program that stays, and returns its file.
func stray(t *testing.T) string {
	t.Helper()
	exe := filepath.Join(t.TempDir(), "sleep")
	if err := copyFile(exe, "/bin/sleep"); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(exe, "60")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = c.Wait() }()
	return exe
}

// poke changes a byte of libc's code that is not executed: the last one.
func poke(t *testing.T, pid int) {
	t.Helper()
	for _, m := range executable(pid) {
		if strings.Contains(m.path, "/libc.so") {
			mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer mem.Close()
			var b [1]byte
			// What follows the file's end is not compared.
			at := int64(m.end) - 0x2000
			if _, err := mem.ReadAt(b[:], at); err != nil {
				t.Fatal(err)
			}
			b[0] ^= 0xff
			if _, err := mem.WriteAt(b[:], at); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("no libc")
}

func TestPlansFollowFromTheirSeeds(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(4000) {
		a, err := newPlan(seed, "")
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := newPlan(seed, ""); a.String() != b.String() {
			t.Fatalf("%v and %v", a, b)
		}
		seen[a.event.name]++
		seen[string(a.phase)]++
		seen[string(a.kind)]++
		if a.event.replaces && a.stream {
			t.Errorf("%v: a signal would meet a program that does not handle it", a)
		}
	}
	for _, e := range events {
		if seen[e.name] < 4000/totalWeight*e.weight/2 {
			t.Errorf("%s: %d of 4000", e.name, seen[e.name])
		}
	}
	if ends := seen[string(phaseArm)] + seen[string(phaseEnd)]; ends < 2000 {
		t.Errorf("%d of 4000 moments are in the windows at the ends", ends)
	}
	for _, k := range anyKind {
		if seen[string(k)] < 100 {
			t.Errorf("worker %s: %d of 4000", k, seen[string(k)])
		}
	}
	if _, err := newPlan(1, "no such event"); err == nil {
		t.Error("an unknown event was accepted")
	}
}

func TestWhatPhpwhySaysIsJudged(t *testing.T) {
	exit := func(code int) syscall.WaitStatus { return syscall.WaitStatus(code << 8) }
	rep := `{"schema":"phpwhy/report/v1","target":{"pid":7},"observation":{"engine":"hwbp"}}`
	for _, tt := range []struct {
		name, event string
		ws          syscall.WaitStatus
		out, err    string
		want        string
	}{
		{"report", "nothing", exit(0), rep, "", ""},
		{"no report", "nothing", exit(0), "", "", "no report"},
		{"no JSON", "nothing", exit(0), "{", "", "no JSON"},
		{"of another process", "nothing", exit(0), strings.Replace(rep, "7", "8", 1), "", "pid 8"},
		{"of another engine", "nothing", exit(0), strings.Replace(rep, "hwbp", "int3", 1), "", "engine is int3"},
		{"failed without cause", "nothing", exit(3), "", "phpwhy: no\n", "exit code 3"},
		{"worker ended", "worker exits", exit(3), "", "phpwhy: it ended\n", ""},
		{"panic", "nothing", exit(2), "", "panic: x\n\ngoroutine 1\n", "exit code 2"},
		{"noise", "nothing", exit(0), rep, "warning\n", "stderr"},
		{"killed", "SIGKILL", syscall.WaitStatus(syscall.SIGKILL), "", "", ""},
		{"died", "nothing", syscall.WaitStatus(syscall.SIGSEGV), "", "", "segmentation"},
		{"signal not handled", "SIGTERM", syscall.WaitStatus(syscall.SIGTERM), "", "", "terminated"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &round{plan: plan{event: eventNamed(tt.event)}, out: &outcome{engine: "hwbp", hit: true}, w: &worker{pid: 7}}
			if got := r.fault(tt.ws, []byte(tt.out), tt.err); !strings.Contains(got, tt.want) || tt.want == "" && got != "" {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func TestTablesSumUp(t *testing.T) {
	c := &config{engines: []string{"hwbp"}, php: "/bin/true", phpwhy: "/bin/true", rounds: 2}
	kill := eventNamed("SIGKILL")
	var b bytes.Buffer
	err := c.print(t.Context(), &b, []*outcome{
		{plan: plan{event: kill, phase: phaseArm, kind: kindLoop}, engine: "hwbp", hit: true, lost: true},
		{plan: plan{event: kill, phase: phaseEnd, kind: kindLoop}, engine: "hwbp", leftPage: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| hwbp | SIGKILL | 2 | 1 | 1 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 1 |\n",
		"| hwbp | **all** | 2 | 1 | 1 | 0 |",
		"| hwbp | arming | 1 | 1 | 1 | 0 |",
		"- hwbp, seed 0, SIGKILL, worker loop, arming: worker lost",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

func TestTablesReplaceThoseInAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "doc.md")
	if err := os.WriteFile(path, []byte("a\n<!-- x -->\nold\n<!-- /x -->\nb\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	print := func(w io.Writer) error { _, err := io.WriteString(w, "new\n"); return err }
	if err := intoFile(path, "x", &out, print); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil || string(b) != "a\n<!-- x -->\nnew\n<!-- /x -->\nb\n" || out.String() != "new\n" {
		t.Errorf("%q, %q, %v", b, out.String(), err)
	}
	if intoFile(path, "y", &out, print) == nil {
		t.Error("a file without the lines was accepted")
	}
}

func TestLatenciesAreMediansOfWindows(t *testing.T) {
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	row, failed := summary("x", []window{{10, 1, ms(3), ms(9), ms(90)}, {20, 0, ms(1), ms(8), ms(20)}, {30, 2, ms(2), ms(7), ms(30)}})
	want := []string{"x", "60", "3", "2.00 ms", "8.00 ms", "30.00 ms", "90.00 ms"}
	if !slices.Equal(row, want) || failed != 3 {
		t.Errorf("%q, %d failed, want %q", row, failed, want)
	}
	if n := missing([]int{1, 2, 3}, []int{3, 4, 1}); n != 1 {
		t.Errorf("%d workers missing, want 1", n)
	}
}
