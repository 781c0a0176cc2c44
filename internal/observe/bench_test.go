package observe

import (
	"os/exec"
	"testing"
	"time"
	"context"
	"os"

	"github.com/phpwhy/phpwhy/internal/target"
	"github.com/phpwhy/phpwhy/internal/ptrace"
)

func TestMain(m *testing.M) {
	if ptrace.IsHelper(os.Args[1:]) { os.Exit(ptrace.HelperMain(os.Args[1:])) }
	os.Exit(m.Run())
}
func BenchmarkCopy(b *testing.B) {
	c := exec.Command("/work/main/.cache/php/8.2-nts/bin/php", "-n", "-d", "memory_limit=-1", "/tmp/w/hang/concat.php")
	c.Start()
	defer c.Process.Kill()
	time.Sleep(300*time.Millisecond)
	live, err := target.Open(c.Process.Pid)
	if err != nil { b.Fatal(err) }
	s, err := New().open(live)
	if err != nil { b.Fatal(err) }
	b.Run("copy", func(b *testing.B) {
	ptrace.Freeze(context.Background(), c.Process.Pid, func(ts []ptrace.ThreadStop) error {
		snap := target.NewSnapshot(live.Mem)
		b.ResetTimer()
		for b.Loop() {
			snap.Reset(live.Mem)
			snap.Regs = ts[0].Regs
			s.copy(snap, firstStack)
		}
		b.ReportMetric(float64(snap.Size()), "bytes"); b.ReportMetric(float64(snap.Reads()), "reads")
		return nil
	})
	})
	b.Run("read", func(b *testing.B) {
		var snap *target.Snapshot
	ptrace.Freeze(context.Background(), c.Process.Pid, func(ts []ptrace.ThreadStop) error {
		snap = target.NewSnapshot(live.Mem)
			snap.Regs = ts[0].Regs
			s.copy(snap, firstStack)
		return nil
	})
		for b.Loop() {
			t := s.unwind(snap)
			s.join(snap, &t, true)
		}
	})
}

func BenchmarkColdDump(b *testing.B) {
	c := exec.Command("/work/main/.cache/php/8.2-nts/bin/php", "-n", "-d", "memory_limit=-1", "/tmp/w/hang/concat.php")
	c.Start()
	defer c.Process.Kill()
	time.Sleep(300*time.Millisecond)
	for b.Loop() {
		c, err := New().Dump(context.Background(), c.Process.Pid)
		if err != nil { b.Fatal(err) }
		b.ReportMetric(float64(c.Observation.PausedUSMax), "paused-us")
	}
}
