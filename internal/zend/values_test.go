package zend_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/phpwhy/phpwhy/internal/target"
	"github.com/phpwhy/phpwhy/internal/zend"
)

// entryOf is a value as the script describes it: name, kind, type, text.
type entryOf [4]string

func entriesOf(vs []zend.Value) []entryOf {
	out := make([]entryOf, len(vs))
	for i, v := range vs {
		out[i] = entryOf{v.Name, string(v.Kind), v.Type, v.Text}
	}
	slices.SortFunc(out, func(a, b entryOf) int { return strings.Compare(a[0], b[0]) })
	return out
}

// readValues does what an observation does: it copies while the process is
// stopped, and reads the copy.
func readValues(t testing.TB, live *target.Live, rt *zend.Runtime, w zend.Want) ([]zend.Frame, [][]zend.Value, *target.Snapshot) {
	t.Helper()
	th, snap := thread(t, rt), target.NewSnapshot(live.Mem)
	th.Prefetch(snap)
	th.PrefetchValues(snap, w)
	snap.Freeze()
	s := th.Walk(snap)
	if s.Err != nil {
		t.Fatal(s.Err)
	}
	vs, err := th.Values(snap, s.Frames, w)
	if err != nil {
		t.Fatal(err)
	}
	return s.Frames, vs, snap
}

func TestValuesAreWhatTheScriptSaysTheyAre(t *testing.T) {
	scripts, err := filepath.Glob("testdata/_values_*.php")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("%v, %v", scripts, err)
	}
	for _, b := range builds {
		for _, script := range scripts {
			t.Run(b.name+"/"+filepath.Base(script), func(t *testing.T) {
				live, rt, line := blocked(t, b, script)
				var want [][]entryOf
				if err := json.Unmarshal([]byte(line), &want); err != nil {
					t.Fatalf("%v: %s", err, line)
				}
				for _, w := range want {
					slices.SortFunc(w, func(a, b entryOf) int { return strings.Compare(a[0], b[0]) })
				}
				frames, vs, snap := readValues(t, live, rt, zend.Want{All: true})
				n := 0
				for i := range max(len(want), len(vs)) {
					if i >= len(want) || i >= len(vs) {
						t.Fatalf("%d frames, want %d", len(vs), len(want))
					}
					n += len(vs[i])
					if d := cmp.Diff(want[i], entriesOf(vs[i])); d != "" {
						t.Errorf("%s: %s", frames[i].Function, d)
					}
				}
				t.Logf("%d values of %d frames agree; %d reads, %d bytes", n, len(vs), snap.Reads(), snap.Size())
			})
		}
	}
}

// TestASnapshotHasAllThatValuesNeed compares with what the stopped process has.
func TestASnapshotHasAllThatValuesNeed(t *testing.T) {
	for _, b := range builds {
		t.Run(b.name, func(t *testing.T) {
			live, rt, _ := blocked(t, b, "testdata/_values_main.php")
			frames, got, snap := readValues(t, live, rt, zend.Want{All: true})
			want, err := thread(t, rt).Values(live.Mem, frames, zend.Want{All: true})
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", got)); d != "" {
				t.Error(d)
			}
			if n := snap.Reads(); n > 2*maxReads {
				t.Errorf("%d reads", n)
			}
		})
	}
}
