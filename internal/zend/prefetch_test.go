package zend_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/phpwhy/phpwhy/internal/target"
	"github.com/phpwhy/phpwhy/internal/zend"
)

// maxReads is how many requests to the live process a stop may cost: globals,
// VM stack, functions, strings, class names, and what is beside the VM stack.
const maxReads = 12

func TestPrefetchRecordsAllThatTheWalkReads(t *testing.T) {
	scripts, err := filepath.Glob("testdata/*.php")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range builds {
		for _, script := range scripts {
			base := strings.TrimSuffix(filepath.Base(script), ".php")
			if strings.HasPrefix(base, "_") {
				continue
			}
			t.Run(b.Name+"/"+base, func(t *testing.T) {
				live, rt, _ := blocked(t, b, script)
				want := thread(t, rt).Walk(live.Mem)
				snap := target.NewSnapshot(live.Mem)
				thread(t, rt).Prefetch(snap)
				snap.Freeze()
				got := thread(t, rt).Walk(snap)
				if got.Err != nil {
					t.Fatal(got.Err)
				}
				if d := cmp.Diff(fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", got)); d != "" {
					t.Error(d)
				}
				if n := snap.Reads(); n > maxReads {
					t.Errorf("%d reads for %d frames, want few large ones", n, len(got.Frames))
				}
			})
		}
	}
}

// TestDeepRecursionIsCutAndSaysSo has more frames than are copied.
func TestDeepRecursionIsCutAndSaysSo(t *testing.T) {
	for _, b := range builds {
		t.Run(b.Name, func(t *testing.T) {
			t.Setenv("PHPWHY_DEPTH", "7500") // xdebug recurses on the C stack, too
			b.Args = append(append([]string{}, b.Args...), "-d", "xdebug.max_nesting_level=-1", "-d", "memory_limit=-1")
			live, rt, _ := blocked(t, b, "testdata/_deep.php")
			snap := target.NewSnapshot(live.Mem)
			thread(t, rt).Prefetch(snap)
			snap.Freeze()
			s := thread(t, rt).Walk(snap)
			if !errors.Is(s.Err, zend.ErrDepth) || len(s.Frames) != zend.MaxFrames {
				t.Fatalf("%d frames, %v", len(s.Frames), s.Err)
			}
			if f := s.Frames[zend.MaxFrames-1]; f.Function != "descend" || f.Line != 10 {
				t.Errorf("the outermost kept frame is %+v", f)
			}
			if n := snap.Reads(); n > maxReads {
				t.Errorf("%d reads", n)
			}
		})
	}
}

// BenchmarkPrefetch is what a stop costs for PHP's part.
func BenchmarkPrefetch(b *testing.B) {
	for _, depth := range []int{5, 50} {
		b.Run(fmt.Sprint(depth, "frames"), func(b *testing.B) {
			php := builds[0]
			b.Setenv("PHPWHY_DEPTH", fmt.Sprint(depth-4)) // and {main}, fgets, descend(0), block()
			live, rt, _ := blocked(b, php, "testdata/_deep.php")
			snap := target.NewSnapshot(live.Mem)
			thread(b, rt).Prefetch(snap)
			if s := thread(b, rt).Walk(snap); s.Err != nil || len(s.Frames) != depth {
				b.Fatalf("%d frames, %v", len(s.Frames), s.Err)
			}
			b.ReportMetric(float64(snap.Reads()), "reads")
			b.ReportMetric(float64(snap.Size()), "bytes")
			for b.Loop() {
				snap.Reset(live.Mem)
				thread(b, rt).Prefetch(snap)
			}
		})
	}
}

// BenchmarkWalk is done when the worker runs again.
func BenchmarkWalk(b *testing.B) {
	b.Setenv("PHPWHY_DEPTH", "46")
	live, rt, _ := blocked(b, builds[0], "testdata/_deep.php")
	snap := target.NewSnapshot(live.Mem)
	thread(b, rt).Prefetch(snap)
	snap.Freeze()
	for b.Loop() {
		if s := thread(b, rt).Walk(snap); s.Err != nil {
			b.Fatal(s.Err)
		}
	}
}
