package observe

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/testphp"
)

// shelf is a store in memory.
type shelf struct {
	kept  map[string][]byte
	saves int
}

func (s *shelf) Load(key string) []byte { return s.kept[key] }

func (s *shelf) Save(key string, data []byte) error {
	s.saves++
	s.kept[key] = data
	return nil
}

// dumpKeeping dumps as a run of its own that keeps its answers in s.
func dumpKeeping(t *testing.T, s *shelf, pid int) []stack.Stack {
	t.Helper()
	o := New()
	o.KeepIn(s)
	c, err := o.Dump(t.Context(), pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Keep(); err != nil {
		t.Fatal(err)
	}
	return c.Stacks
}

// TestKeptAnswersGiveTheSameStacks: a second run says what the first one did, and
// finds nothing out anew. What is kept and can't be decoded is as good as absent.
func TestKeptAnswersGiveTheSameStacks(t *testing.T) {
	for _, b := range testphp.AllBuilds(t) {
		t.Run(b.Name, func(t *testing.T) {
			scripts := testphp.BacktraceScripts(t, b.Version(t))
			pid, _ := testphp.Blocked(t, b, scripts[0])
			o := New()
			c, err := o.Dump(t.Context(), pid)
			if err != nil {
				t.Fatal(err)
			}
			s := &shelf{kept: make(map[string][]byte)}
			if d := cmp.Diff(c.Stacks, dumpKeeping(t, s, pid)); d != "" {
				t.Errorf("without and with a store:\n%s", d)
			}
			if len(s.kept) == 0 {
				t.Fatal("nothing was kept")
			}
			saves := s.saves
			if d := cmp.Diff(c.Stacks, dumpKeeping(t, s, pid)); d != "" {
				t.Errorf("from what was kept:\n%s", d)
			}
			if s.saves != saves {
				t.Errorf("the second run saved %d times: it had to find something out", s.saves-saves)
			}
			for _, k := range slices.Collect(maps.Keys(s.kept)) {
				s.kept[k] = []byte(`{"Funcs":{"12":[{"Name":`)
			}
			if d := cmp.Diff(c.Stacks, dumpKeeping(t, s, pid)); d != "" {
				t.Errorf("from what is broken:\n%s", d)
			}
		})
	}
}
