package observe

import (
	"context"
	"testing"

	"github.com/phpwhy/phpwhy/internal/testphp"
)

// BenchmarkColdDump takes one stack with nothing parsed before.
func BenchmarkColdDump(b *testing.B) {
	w := testphp.Start(b, testphp.DWARF(b), testphp.Hang(b, "mem.string-concat.php"))
	var paused int64
	n := 0
	for b.Loop() {
		c, err := New().Dump(context.Background(), w.PID)
		if err != nil {
			b.Fatal(err)
		}
		paused += c.Observation.PausedUSMax
		n++
	}
	b.ReportMetric(float64(paused)/float64(n), "paused-us/op")
}
