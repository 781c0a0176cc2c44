package compare

import (
	"slices"
	"testing"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/triage"
)

func frames(line int, pc uint64, names ...string) []stack.Frame {
	out := []stack.Frame{{Kind: stack.PHP, Function: "f", File: "/x.php", Line: line}}
	for _, n := range names {
		out = append(out, stack.Frame{Kind: stack.Native, Function: n, Offset: pc})
	}
	return out
}

func model(counts map[int]int, rule string, workers ...triage.Worker) *triage.Model {
	m := &triage.Model{Workers: workers, Hosts: []triage.Host{{Name: "web1", BootID: "b"}}, Groups: []triage.Group{{Title: "loops"}, {Title: "sleeps"}}}
	for line := range 10 {
		if n := counts[line]; n > 0 {
			m.Stacks = append(m.Stacks, triage.Stack{Count: n, Frames: frames(line, uint64(n), "execute_ex")})
		}
	}
	if rule != "" {
		f := triage.Finding{Rule: rule}
		for i := range workers {
			f.Workers = append(f.Workers, i)
		}
		m.Findings = append(m.Findings, f)
	}
	return m
}

func TestStacksAreComparedByTheirShare(t *testing.T) {
	a := model(map[int]int{1: 50, 2: 30, 3: 20}, "")
	b := model(map[int]int{1: 500, 2: 100, 4: 400}, "")
	d := Reports(a, b)
	got := map[int]Change{}
	for _, s := range d.Stacks {
		got[s.Frames[0].Line] = s.Change
	}
	want := map[int]Change{2: Shrunk, 3: Gone, 4: New}
	if len(got) != len(want) || got[2] != want[2] || got[3] != want[3] || got[4] != want[4] || d.SameStacks != 1 {
		t.Errorf("got %v and %d the same, want %v and 1: half of the events are at line 1 in both", got, d.SameStacks, want)
	}
	if d.Stacks[0].Change != New || d.Stacks[0].ShareB != 0.4 {
		t.Errorf("the largest change is not first: %+v", d.Stacks[0])
	}
	if back := Reports(b, a); len(back.Stacks) != 3 || back.Stacks[0].Change != Gone {
		t.Errorf("the other way round: %+v", back.Stacks)
	}
}

func TestKeyTellsStacksApart(t *testing.T) {
	base := frames(1, 7, "a", "b")
	for _, c := range []struct {
		name  string
		other []stack.Frame
		same  bool
	}{
		{"another address", frames(1, 8, "a", "b"), true},
		{"another line of PHP", frames(2, 7, "a", "b"), false},
		{"another function", frames(1, 7, "a", "c"), false},
		{"one frame less", frames(1, 7, "a"), false},
		{"names that run together", frames(1, 7, "a\"\nnative\"b"), false},
	} {
		if got := Key(base) == Key(c.other); got != c.same {
			t.Errorf("%s: same is %v", c.name, got)
		}
	}
	unknown := func(at uint64) []stack.Frame { return []stack.Frame{{Kind: stack.Native, Module: "php", Offset: at}} }
	if Key(unknown(1)) == Key(unknown(2)) {
		t.Error("two unknown functions are one")
	}
}

func TestFindingsAndWorkersAreNewGoneOrMoved(t *testing.T) {
	w := func(pid, group int, start uint64) triage.Worker {
		return triage.Worker{PID: pid, Start: start, Group: group}
	}
	a := model(nil, "old", w(1, 0, 5), w(2, 0, 5), w(3, 0, 5), w(4, 0, 5))
	b := model(nil, "fresh", w(1, 0, 5), w(2, 1, 5), w(3, 0, 6))
	d := Reports(a, b)
	if len(d.Findings) != 2 || d.Findings[0].Change != New || d.Findings[0].Rule != "fresh" || d.Findings[1].Change != Gone || d.Findings[1].WorkersA != 4 {
		t.Errorf("findings %+v", d.Findings)
	}
	// 3 was started anew: another process of the same number.
	want := []struct {
		change Change
		pid    int
	}{{Moved, 2}, {New, 3}, {Gone, 3}, {Gone, 4}}
	if len(d.Workers) != len(want) || d.SameWorkers != 1 {
		t.Fatalf("workers %+v, %d the same", d.Workers, d.SameWorkers)
	}
	for i, x := range want {
		if d.Workers[i].Change != x.change || d.Workers[i].PID != x.pid || d.Workers[i].Host != "web1" {
			t.Errorf("worker %d: %+v, want %s %d", i, d.Workers[i], x.change, x.pid)
		}
	}
	grown := Reports(model(nil, "r", w(1, 0, 5)), func() *triage.Model {
		m := model(nil, "r", w(1, 0, 5), w(2, 0, 5))
		m.Findings[0].Workers = m.Findings[0].Workers[:1]
		return m
	}())
	if f := grown.Findings[0]; f.Change != Shrunk || f.ShareB != 0.5 {
		t.Errorf("one of one and one of two workers: %+v", f)
	}
}

func TestWhatIsHardToCompareIsNoted(t *testing.T) {
	seen := func(kind capture.EventKind) *triage.Model {
		m := model(map[int]int{1: 1}, "")
		m.Stacks[0].Seen = []triage.Seen{{Kind: kind, N: 1}}
		return m
	}
	if n := Reports(seen(capture.Stop), seen(capture.Stop)).Notes; len(n) != 0 {
		t.Errorf("two of a kind: %q", n)
	}
	want := []string{"A has stops and B has none: a finding may be gone for that alone", "B has samples and A has none: a finding may be new for that alone"}
	if n := Reports(seen(capture.Stop), seen(capture.Sample)).Notes; !slices.Equal(n, want) {
		t.Errorf("got %q, want %q", n, want)
	}
}

func TestNothingComparesToNothing(t *testing.T) {
	d := Reports(&triage.Model{}, &triage.Model{})
	if d.Findings == nil || d.Stacks == nil || d.Workers == nil || d.A.Sources == nil || len(d.Stacks)+len(d.Workers)+len(d.Findings) != 0 {
		t.Errorf("got %+v", d)
	}
}
