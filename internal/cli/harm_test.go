package cli_test

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/testphp"
)

// observing waits until phpwhy has begun to trace a process.
func observing(t testing.TB, pid int) {
	t.Helper()
	for range 1000 {
		if status(pid, "TracerPid") != "0" {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
	t.Fatal("nobody traces the worker")
}

func status(pid int, field string) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// unharmed holds that the worker runs, untraced, with the C library's code as
// it is in the file.
func unharmed(t testing.TB, pid int) {
	t.Helper()
	if !testphp.Alive(pid) {
		t.Fatal("the worker is dead")
	}
	for range 500 {
		if status(pid, "TracerPid") == "0" && strings.HasPrefix(status(pid, "State"), "R") {
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	if s, tr := status(pid, "State"), status(pid, "TracerPid"); tr != "0" || !strings.HasPrefix(s, "R") && !strings.HasPrefix(s, "S") {
		t.Errorf("the worker is in state %s, traced by %s", s, tr)
	}
	if diff := textDiffers(t, pid); diff != "" {
		t.Error(diff)
	}
	before := cpu(t, pid)
	for range 200 { // the machine may be busy
		time.Sleep(20 * time.Millisecond)
		if cpu(t, pid) != before {
			return
		}
	}
	t.Error("the worker makes no progress")
}

func cpu(t testing.TB, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(b))[0]
}

var libcText = regexp.MustCompile(`(?m)^([0-9a-f]+)-([0-9a-f]+) r-xp ([0-9a-f]+) .*/libc\.so\.6$`)

// textDiffers compares the C library's code in memory with its file.
func textDiffers(t testing.TB, pid int) string {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := libcText.FindStringSubmatch(string(maps))
	if m == nil {
		t.Fatalf("no libc is mapped: %s", maps)
	}
	num := func(s string) int64 {
		n, err := strconv.ParseInt(s, 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	from, to, off := num(m[1]), num(m[2]), num(m[3])
	have, want := make([]byte, to-from), make([]byte, to-from)
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	if _, err := mem.ReadAt(have, from); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(fmt.Sprintf("/proc/%d/map_files/%s-%s", pid, m[1], m[2]))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	n, err := file.ReadAt(want, off)
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
	for i := range n {
		if have[i] != want[i] {
			return fmt.Sprintf("libc's code differs from its file at %#x: %#x, not %#x", off+int64(i), have[i], want[i])
		}
	}
	return ""
}

var engines = []string{"hwbp", "int3"}

func TestAWorkerSurvivesTheKillOfPhpwhy(t *testing.T) {
	const rounds = 20
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "mem.string-concat.php"))
	for i := range rounds {
		c := exec.Command(phpwhy(t), "attach", fmt.Sprint(w.PID), "--engine", "hwbp", "--for", "20s", "--stops", "1000000000", "--max-pause", "100%")
		b := begin(t, c)
		observing(t, w.PID)
		// Arming, in the first milliseconds, is another matter; see package ptrace.
		time.Sleep(30*time.Millisecond + time.Duration(rand.IntN(100_000))*time.Microsecond)
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = c.Wait()
		time.Sleep(20 * time.Millisecond) // what kills it would do so at once
		if !testphp.Alive(w.PID) {
			t.Fatalf("round %d: the worker died: %v; phpwhy: %s", i, w.Cmd.Wait(), b.err.String())
		}
		unharmed(t, w.PID)
	}
	t.Logf("alive %d of %d", rounds, rounds)
}

func TestSignalsEndAnObservationWithAReport(t *testing.T) {
	for _, engine := range engines {
		for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGTSTP} {
			t.Run(engine+" "+sig.String(), func(t *testing.T) {
				w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "mem.string-concat.php"))
				time.Sleep(grown)
				c := exec.Command(phpwhy(t), "attach", fmt.Sprint(w.PID), "--engine", engine, "--for", "50s", "--stops", "1000000000", "--format", "json")
				b := begin(t, c)
				observing(t, w.PID)
				time.Sleep(time.Second) // a busy machine has turns for others, too
				if err := c.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
				r := finish(t, c, b)
				rep := parse(t, r)
				if r.code != 0 || rep.Observation.Stops == 0 || len(rep.Findings) == 0 {
					t.Errorf("exit %d, %d stops, findings %v: %s", r.code, rep.Observation.Stops, rep.Findings, r.err)
				}
				unharmed(t, w.PID)
			})
		}
	}
}

// TestASignalThatIsToBeIgnoredIsIgnored: under nohup the end of a login is not the end
// of an observation.
func TestASignalThatIsToBeIgnoredIsIgnored(t *testing.T) {
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "mem.string-concat.php"))
	c := exec.Command(testphp.Require(t, "nohup"), phpwhy(t), "attach", fmt.Sprint(w.PID), "--for", "2s", "--stops", "1000000000", "--format", "json")
	b := begin(t, c)
	observing(t, w.PID)
	if err := c.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	rep := parse(t, finish(t, c, b))
	if d := rep.Observation.DurationMS; d < 1900 {
		t.Errorf("it ended after %d ms", d)
	}
}

func TestTheTargetsEndLeavesAReportOfWhatWasSeen(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "mem.string-concat.php"))
			time.Sleep(grown)
			c := exec.Command(phpwhy(t), "attach", fmt.Sprint(w.PID), "--engine", engine, "--for", "50s", "--stops", "1000000000", "--format", "json")
			b := begin(t, c)
			observing(t, w.PID)
			time.Sleep(300 * time.Millisecond)
			_ = w.Cmd.Process.Kill()
			r := finish(t, c, b)
			rep := parse(t, r)
			if r.code != 3 || rep.Observation.Stops == 0 || len(rep.Findings) == 0 {
				t.Errorf("exit %d, %d stops, findings %v: %s", r.code, rep.Observation.Stops, rep.Findings, r.err)
			}
			if !strings.Contains(r.err, "ended") || strings.Count(r.err, "\n") != 1 {
				t.Errorf("stderr %q", r.err)
			}
		})
	}
}

// counter is a worker that writes how often it went round; it maps and unmaps
// memory all the time. It writes every round, of about 1 ms: the windows in
// which it is counted hold some 300 of them, so that one more or less is
// nothing.
const counter = `<?php
echo "ready\n"; flush();
$out = fopen($argv[1], 'c');
for ($i = 0;; $i++) {
    $s = str_repeat('x', 3 << 20); $s .= 'y'; unset($s);
    rewind($out); fwrite($out, sprintf('%012d', $i)); fflush($out);
}
`

// A worker that is killed while it is looked at, as by a request's time limit, is
// told by what it did until then.
func TestAWorkerThatIsKilledMeanwhileIsDiagnosedAllTheSame(t *testing.T) {
	for _, engine := range []string{"hwbp", "syscall"} {
		t.Run(engine, func(t *testing.T) {
			script := testphp.Hang(t, "cpu.php-loop.php")
			w := testphp.Start(t, testphp.Stripped(t), script)
			c := exec.Command(phpwhy(t), "attach", fmt.Sprint(w.PID), "--engine", engine, "--for", "30s", "--format", "json")
			b := begin(t, c)
			time.Sleep(2 * time.Second)
			if err := syscall.Kill(w.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			r := finish(t, c, b)
			rep := parse(t, r)
			if r.code != 3 || len(rep.Findings) == 0 || rep.Findings[0].Rule != "cpu.php-loop" {
				t.Errorf("exit %d, findings %+v, notes %v", r.code, rep.Findings, rep.Notes)
			}
			if !strings.Contains(rep.Target.Cmdline, filepath.Base(script)) || rep.Target.Exe == "" {
				t.Errorf("cmdline %q, exe %q", rep.Target.Cmdline, rep.Target.Exe)
			}
		})
	}
}

func TestAWorkerRunsAtFullSpeedAfterwards(t *testing.T) {
	dir := t.TempDir()
	script, count := filepath.Join(dir, "counter.php"), filepath.Join(dir, "count")
	if err := os.WriteFile(script, []byte(counter), 0o600); err != nil {
		t.Fatal(err)
	}
	w := testphp.StartCommand(t, testphp.Stripped(t), "-n", "-d", "memory_limit=-1", script, count)
	rate := func() float64 {
		read := func() int {
			b, _ := os.ReadFile(count)
			n, _ := strconv.Atoi(string(bytes.TrimLeft(b, "0")))
			return n
		}
		n0, c0 := read(), cpuNanos(t, w.PID)
		time.Sleep(300 * time.Millisecond)
		n1, c1 := read(), cpuNanos(t, w.PID)
		if n1-n0 < 20 {
			t.Fatalf("%d rounds in 300 ms are too few to compare", n1-n0)
		}
		return float64(n1-n0) / float64(c1-c0)
	}
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			// The machine has slow moments. A breakpoint that stayed behind
			// would slow down every attempt.
			ratio := 0.0
			for range 5 {
				var ratios []float64
				for range 5 {
					before := rate()
					if r := run(t, "attach", fmt.Sprint(w.PID), "--engine", engine, "--for", "300ms"); r.code != 0 {
						t.Fatalf("exit %d: %s", r.code, r.err)
					}
					ratios = append(ratios, rate()/before)
				}
				slices.Sort(ratios)
				ratio = ratios[len(ratios)/2]
				t.Logf("afterwards it does %.2f of the work per CPU time", ratio)
				if ratio >= 0.9 {
					break
				}
			}
			unharmed(t, w.PID)
			if ratio < 0.9 {
				t.Errorf("afterwards it does %.2f of the work it did before", ratio)
			}
		})
	}
}

func cpuNanos(t testing.TB, pid int) int64 {
	n, err := strconv.ParseInt(cpu(t, pid), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestLyingProgramFilesAreToldInOneLine damages what the kernel doesn't need to
// run a program: its section headers and what they describe.
func TestLyingProgramFilesAreToldInOneLine(t *testing.T) {
	php := testphp.Stripped(t)
	whole, err := os.ReadFile(php)
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.NewFile(bytes.NewReader(whole))
	if err != nil {
		t.Fatal(err)
	}
	shoff := int(leUint(whole[0x28:0x30]))
	header := func(name string) int {
		for i, s := range f.Sections {
			if s.Name == name {
				return shoff + 64*i
			}
		}
		t.Fatalf("no section %s", name)
		return 0
	}
	set := func(b []byte, at int, v uint64) {
		for i := range 8 {
			b[at+i] = byte(v >> (8 * i))
		}
	}
	for _, tt := range []struct {
		name   string
		damage func(b []byte) []byte
		code   []int
	}{
		{"cut before its section headers", func(b []byte) []byte { return b[:shoff] }, []int{3}},
		{"section headers elsewhere", func(b []byte) []byte { set(b, 0x28, 1<<40); return b }, []int{3}},
		{"symbols beyond the file", func(b []byte) []byte { set(b, header(".dynsym")+0x20, 1<<40); return b }, []int{3}},
		{"call-frame information beyond the file", func(b []byte) []byte { set(b, header(".eh_frame")+0x20, 1<<40); return b }, []int{0}},
		{"call-frame information full of noise", func(b []byte) []byte {
			s := f.Section(".eh_frame")
			for i := range int(s.Size) {
				if i%7 == 3 {
					b[int(s.Offset)+i] ^= byte(i)
				}
			}
			return b
		}, nil}, // the program itself may be unable to run
		{"a search table full of noise", func(b []byte) []byte {
			s := f.Section(".eh_frame_hdr")
			for i := 12; i < int(s.Size); i++ {
				b[int(s.Offset)+i] ^= 0x5a
			}
			return b
		}, []int{0}},
		{"a build-id that claims a gigabyte", func(b []byte) []byte {
			set(b, int(f.Section(".note.gnu.build-id").Offset), 0x4000000000000004)
			return b
		}, []int{0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "php")
			if err := os.WriteFile(path, tt.damage(bytes.Clone(whole)), 0o755); err != nil {
				t.Fatal(err)
			}
			w := testphp.Start(t, path, testphp.Hang(t, "sleep.php"))
			r := run(t, "dump", fmt.Sprint(w.PID))
			ok := tt.code == nil && (r.code == 0 || r.code == 3)
			for _, c := range tt.code {
				ok = ok || r.code == c
			}
			if !ok {
				t.Errorf("exit %d: %s", r.code, r.err)
			}
			if r.code != 0 && (strings.Count(r.err, "\n") != 1 || r.out != "") {
				t.Errorf("stdout %q, stderr %q; want one line", r.out, r.err)
			}
			if !testphp.Alive(w.PID) {
				t.Error("the worker is dead")
			}
		})
	}
}

func leUint(b []byte) uint64 {
	var v uint64
	for i := range b {
		v |= uint64(b[i]) << (8 * i)
	}
	return v
}
