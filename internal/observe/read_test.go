package observe

import (
	"context"
	"testing"

	"github.com/phpwhy/phpwhy/internal/ptrace"
	"github.com/phpwhy/phpwhy/internal/target"
	"github.com/phpwhy/phpwhy/internal/testphp"
)

// BenchmarkStop measures the two halves of a stop on a real stack: what the
// worker waits for (copy), and what happens after it runs again (read).
func BenchmarkStop(b *testing.B) {
	w := testphp.Start(b, testphp.DWARF(b), testphp.Hang(b, "mem.string-concat.php"))
	live, err := target.Open(w.PID)
	if err != nil {
		b.Fatal(err)
	}
	defer live.Close()
	s, err := New().open(live)
	if err != nil {
		b.Fatal(err)
	}
	snap := target.NewSnapshot(live.Mem)
	b.Run("copy", func(b *testing.B) {
		_, err := ptrace.Freeze(context.Background(), w.PID, func(ts []ptrace.ThreadStop) error {
			for b.Loop() {
				snap.Reset(live.Mem)
				snap.TID, snap.Regs = ts[0].TID, ts[0].Regs
				s.copy(snap, firstStack)
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(snap.Size()), "B")
		b.ReportMetric(float64(snap.Reads()), "reads")
	})
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			t := s.unwind(snap)
			s.pipe.stacks.add(s.joined(snap, &reading{img: s.image(), trace: t}, nil, true))
		}
	})
}
