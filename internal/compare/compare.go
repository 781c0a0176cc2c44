// Package compare says what differs between two reports on many workers: what
// is new, gone, grown or shrunk.
//
// Contract: everything that is in either report is compared, nothing is
// guessed. Stacks are the same when their functions, and the lines of their PHP
// frames, are; addresses do not count, so that two builds compare. Stacks are
// weighed by their share of all events: two captures are seldom of one length.
//
// Non-goal: it reads no files and prints nothing.
package compare

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/triage"
)

// Schema names the version of the JSON form.
const Schema = "phpwhy/diff/v1"

// Change is what became of something between A and B.
type Change string

// The changes. Moved is a worker that does something else than before.
const (
	New    Change = "new"
	Gone   Change = "gone"
	Grown  Change = "grown"
	Shrunk Change = "shrunk"
	Same   Change = "same"
	Moved  Change = "moved"
)

// least is by how much a share must differ to count as grown or shrunk: one in
// a hundred. Less is noise in most captures.
const least = 0.01

// Diff is what differs. Every slice is present in JSON, empty or not.
type Diff struct {
	Schema   string    `json:"schema"`
	A        Side      `json:"a"`
	B        Side      `json:"b"`
	Findings []Finding `json:"findings"` // new ones first, then by how much changed
	Stacks   []Stack   `json:"stacks"`   // by how much their share changed; those that did not are left out
	Workers  []Worker  `json:"workers"`  // that are new, gone or moved
	// SameStacks and SameWorkers count what did not change.
	SameStacks  int `json:"same_stacks"`
	SameWorkers int `json:"same_workers"`
	// Notes say what makes the two hard to compare.
	Notes []string `json:"notes"`
}

// Side is one of the two reports in numbers.
type Side struct {
	Sources []string `json:"sources"`
	Summary string   `json:"summary"`
	Workers int      `json:"workers"`
	Events  int      `json:"events"`
	Stacks  int      `json:"stacks"`
}

// Finding is a rule that matches workers in either report.
type Finding struct {
	Change     Change  `json:"change"`
	Rule       string  `json:"rule"`
	Kind       string  `json:"kind"`
	Severity   string  `json:"severity"`
	Title      string  `json:"title"`
	Message    string  `json:"message"` // of B, or of A when it is gone
	WorkersA   int     `json:"workers_a"`
	WorkersB   int     `json:"workers_b"`
	ShareA     float64 `json:"share_a"` // of all workers
	ShareB     float64 `json:"share_b"`
	Confidence float64 `json:"confidence"`
}

// Stack is a joined stack of either report.
type Stack struct {
	Change Change        `json:"change"`
	CountA int           `json:"count_a"`
	CountB int           `json:"count_b"`
	ShareA float64       `json:"share_a"` // of all events
	ShareB float64       `json:"share_b"`
	Frames []stack.Frame `json:"frames"`
}

// Worker is a process of either report.
type Worker struct {
	Change Change      `json:"change"`
	Host   string      `json:"host"`
	PID    int         `json:"pid"`
	DoesA  string      `json:"does_a"` // the title of its group
	DoesB  string      `json:"does_b"`
	SiteA  triage.Site `json:"php_a"`
	SiteB  triage.Site `json:"php_b"`
}

// Reports compares two of them.
func Reports(a, b *triage.Model) *Diff {
	d := &Diff{Schema: Schema, A: side(a), B: side(b), Findings: findings(a, b)}
	d.Stacks, d.SameStacks = stacks(a, b)
	d.Workers, d.SameWorkers = workers(a, b)
	d.Notes = notes(a, b)
	return d
}

// notes: a rule that wants stops finds nothing where there were none, which
// looks like a cause that is gone.
func notes(a, b *triage.Model) []string {
	out := []string{}
	for _, kind := range []capture.EventKind{capture.Stop, capture.Sample} {
		switch inA, inB := has(a, kind), has(b, kind); {
		case inA && !inB:
			out = append(out, fmt.Sprintf("A has %ss and B has none: a finding may be gone for that alone", kind))
		case inB && !inA:
			out = append(out, fmt.Sprintf("B has %ss and A has none: a finding may be new for that alone", kind))
		}
	}
	return out
}

func has(m *triage.Model, kind capture.EventKind) bool {
	for i := range m.Stacks {
		if slices.ContainsFunc(m.Stacks[i].Seen, func(s triage.Seen) bool { return s.Kind == kind }) {
			return true
		}
	}
	return false
}

func side(m *triage.Model) Side {
	s := Side{Sources: []string{}, Summary: m.Summary, Workers: len(m.Workers), Stacks: len(m.Stacks)}
	for i := range m.Sources {
		s.Sources = append(s.Sources, m.Sources[i].Name)
	}
	s.Events = events(m)
	return s
}

func events(m *triage.Model) int {
	n := 0
	for i := range m.Stacks {
		n += m.Stacks[i].Count
	}
	return n
}

func share(n, of int) float64 {
	if of == 0 {
		return 0
	}
	return float64(n) / float64(of)
}

// judge compares counts by whether there are any, and by their shares.
func judge(na, nb int, sa, sb float64) Change {
	switch {
	case na == 0 && nb > 0:
		return New
	case na > 0 && nb == 0:
		return Gone
	case sb-sa >= least:
		return Grown
	case sa-sb >= least:
		return Shrunk
	}
	return Same
}

func findings(a, b *triage.Model) []Finding {
	out := []Finding{}
	add := func(f *triage.Finding, na, nb int) {
		x := Finding{Rule: f.Rule, Kind: f.Kind, Severity: f.Severity, Title: f.Title, Message: f.Message, Confidence: f.Confidence,
			WorkersA: na, WorkersB: nb, ShareA: share(na, len(a.Workers)), ShareB: share(nb, len(b.Workers))}
		x.Change = judge(na, nb, x.ShareA, x.ShareB)
		out = append(out, x)
	}
	before := map[string]int{}
	for i := range a.Findings {
		before[a.Findings[i].Rule] = len(a.Findings[i].Workers)
	}
	after := map[string]bool{}
	for i := range b.Findings {
		f := &b.Findings[i]
		after[f.Rule] = true
		add(f, before[f.Rule], len(f.Workers))
	}
	for i := range a.Findings {
		if f := &a.Findings[i]; !after[f.Rule] {
			add(f, len(f.Workers), 0)
		}
	}
	order := map[Change]int{New: 0, Grown: 1, Shrunk: 2, Gone: 3, Same: 4}
	slices.SortStableFunc(out, func(x, y Finding) int {
		return cmp.Or(cmp.Compare(order[x.Change], order[y.Change]), cmp.Compare(change(y.ShareA, y.ShareB), change(x.ShareA, x.ShareB)), cmp.Compare(x.Rule, y.Rule))
	})
	return out
}

func change(a, b float64) float64 { return max(a-b, b-a) }

func stacks(a, b *triage.Model) (out []Stack, same int) {
	out = []Stack{}
	index := map[string]int{}
	var all []Stack
	take := func(m *triage.Model, count func(*Stack) *int) {
		for i := range m.Stacks {
			s := &m.Stacks[i]
			k := Key(s.Frames)
			at, ok := index[k]
			if !ok {
				at = len(all)
				index[k] = at
				all = append(all, Stack{Frames: append([]stack.Frame{}, s.Frames...)})
			}
			*count(&all[at]) += s.Count
		}
	}
	take(a, func(s *Stack) *int { return &s.CountA })
	take(b, func(s *Stack) *int { return &s.CountB })
	na, nb := events(a), events(b)
	for _, s := range all {
		s.ShareA, s.ShareB = share(s.CountA, na), share(s.CountB, nb)
		if s.Change = judge(s.CountA, s.CountB, s.ShareA, s.ShareB); s.Change == Same {
			same++
			continue
		}
		out = append(out, s)
	}
	slices.SortStableFunc(out, func(x, y Stack) int {
		return cmp.Compare(change(y.ShareA, y.ShareB), change(x.ShareA, x.ShareB))
	})
	return out, same
}

// Key is equal for stacks that count as one: of the same functions, at the
// same lines of PHP code. Unknown native code is told apart by its offset.
func Key(fs []stack.Frame) string {
	var b strings.Builder
	for i := range fs {
		f := &fs[i]
		// Quoting keeps names with separators in them apart.
		b.WriteString(string(f.Kind))
		b.WriteString(strconv.Quote(f.QualifiedName()))
		switch {
		case f.Kind == stack.PHP:
			b.WriteString(strconv.Quote(f.File))
			b.WriteString(strconv.Itoa(f.Line))
		case f.Function == "":
			b.WriteString(strconv.Quote(f.Module))
			b.WriteString(strconv.FormatUint(f.Offset, 16))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

type process struct {
	host, boot string
	pid        int
	start      uint64
}

func processes(m *triage.Model) (ids []process, index map[process]int) {
	index = map[process]int{}
	for i := range m.Workers {
		w := &m.Workers[i]
		p := process{pid: w.PID, start: w.Start}
		if w.Host >= 0 && w.Host < len(m.Hosts) {
			p.host, p.boot = m.Hosts[w.Host].Name, m.Hosts[w.Host].BootID
		}
		ids = append(ids, p)
		index[p] = i
	}
	return ids, index
}

func workers(a, b *triage.Model) (out []Worker, same int) {
	out = []Worker{}
	idsA, inA := processes(a)
	idsB, inB := processes(b)
	for i, p := range idsB {
		w := Worker{Change: New, Host: p.host, PID: p.pid, DoesB: does(b, i), SiteB: b.Workers[i].Site}
		if j, ok := inA[p]; ok {
			w.Change, w.DoesA, w.SiteA = Moved, does(a, j), a.Workers[j].Site
			// The line of a loop's body differs from look to look: what it does is the rule, or the function.
			if w.DoesA == w.DoesB && w.SiteA.Function == w.SiteB.Function && w.SiteA.Class == w.SiteB.Class && w.SiteA.File == w.SiteB.File {
				same++
				continue
			}
		}
		out = append(out, w)
	}
	for i, p := range idsA {
		if _, ok := inB[p]; !ok {
			out = append(out, Worker{Change: Gone, Host: p.host, PID: p.pid, DoesA: does(a, i), SiteA: a.Workers[i].Site})
		}
	}
	order := map[Change]int{Moved: 0, New: 1, Gone: 2}
	slices.SortStableFunc(out, func(x, y Worker) int {
		return cmp.Or(cmp.Compare(order[x.Change], order[y.Change]), cmp.Compare(x.Host, y.Host), cmp.Compare(x.PID, y.PID))
	})
	return out, same
}

// does is the title of a worker's group.
func does(m *triage.Model, i int) string {
	if g := m.Workers[i].Group; g >= 0 && g < len(m.Groups) {
		return m.Groups[g].Title
	}
	return ""
}
