package report

import (
	_ "embed"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/triage"
)

//go:embed triage-v1.schema.json
var manySchema []byte

// ManyJSONSchema is the JSON Schema (draft 2020-12) of what ManyJSON writes.
func ManyJSONSchema() []byte { return slices.Clone(manySchema) }

// What the text form shows of a report on many workers. The JSON form has it all.
const (
	maxGroups   = 12
	maxURIs     = 4
	maxPIDs     = 12
	maxWaits    = 4
	maxFailures = 5
)

// ManyJSON writes m as one line of JSON.
func ManyJSON(w io.Writer, m *triage.Model) error { return writeJSON(w, m) }

// ManyText writes m for a person: what most workers do, then the groups, the
// largest first, then what went wrong and what it cost.
func ManyText(w io.Writer, m *triage.Model, o TextOptions) error {
	t := &manyWriter{textWriter: textWriter{printer: newPrinter(w, o), r: &Report{}}, m: m}
	t.prose("", bold, m.Summary)
	for i := range m.Groups {
		if i == maxGroups {
			n := 0
			for _, g := range m.Groups[i:] {
				n += len(g.Workers)
			}
			t.end()
			t.prose("", plain, fmt.Sprintf("and %s in %s more, which --format json lists", count(n, "worker"), count(len(m.Groups)-i, "group")))
			break
		}
		t.end()
		t.group(&m.Groups[i])
	}
	t.end()
	t.failures()
	t.cost()
	for _, n := range m.Notes {
		t.prose("note: ", plain, n)
	}
	return t.w.Flush()
}

type manyWriter struct {
	textWriter
	m *triage.Model
}

func (t *manyWriter) group(g *triage.Group) {
	n := len(g.Workers)
	s := count(n, "worker")
	if g.Kind == Benign {
		s += " healthy"
	}
	t.put(bold, s+": ")
	t.line(severityStyle(&Finding{Kind: g.Kind, Severity: g.Severity}), g.Title)
	t.site(Site(g.Site))
	if g.Kind == Benign { // nobody wants to see how they wait
		t.prose("  pids: ", dim, t.pids(g.Workers))
		return
	}
	if g.Message != "" {
		t.prose("  ", plain, strings.TrimSpace(g.Message))
	}
	for i := range g.Waits {
		if i == maxWaits {
			t.prose("  ", plain, fmt.Sprintf("and %s more", number(len(g.Waits)-i)))
			break
		}
		w := &g.Waits[i]
		s := t.m.Waiting(w)
		if w.HolderURI != "" {
			s += " (" + w.HolderURI + ")"
		}
		t.prose("  "+number(len(w.Workers))+" of them ", plain, s)
	}
	t.requests(g)
	t.prose("  pids: ", plain, t.pids(g.Workers))
	for i := range g.Undetermined {
		t.prose("  undetermined: ", dim, g.Undetermined[i].Lacks())
	}
	if g.Fix != "" {
		t.prose("  fix: ", plain, strings.Join(strings.Fields(g.Fix), " "))
	}
	if g.Rule != "" {
		t.prose("  rule: ", dim, fmt.Sprintf("%s, severity %s", g.Rule, g.Severity))
	}
	if len(g.Stacks) > 0 {
		t.typical(g)
	}
}

func (t *manyWriter) typical(g *triage.Group) {
	st := &t.m.Stacks[g.Stacks[0]]
	head := "  stack"
	if len(g.Stacks) > 1 {
		n := 0
		for _, seen := range st.Seen {
			if slices.Contains(g.Workers, seen.Worker) {
				n += seen.N
			}
		}
		head = fmt.Sprintf("  the most frequent of %s, seen %s", count(len(g.Stacks), "stack"), often(n))
	}
	t.line(dim, head+":")
	t.stack(&Stack{Stack: stack.Stack{Frames: st.Frames, End: st.End, Error: st.Error}})
}

func often(n int) string {
	if n == 1 {
		return "once"
	}
	return number(n) + " times"
}

func (t *manyWriter) requests(g *triage.Group) {
	if len(g.URIs) == 0 {
		return
	}
	var parts []string
	for i, u := range g.URIs {
		if i == maxURIs {
			parts = append(parts, fmt.Sprintf("%s more", number(len(g.URIs)-i)))
			break
		}
		s := strings.TrimSpace(u.Method + " " + u.URI)
		if u.N > 1 {
			s += " ×" + number(u.N)
		}
		parts = append(parts, s)
	}
	s := strings.Join(parts, ", ")
	if a := Ages(g.Ages); a != "" {
		s += "; for " + a
	}
	t.prose("  requests: ", plain, s)
}

// pids lists workers, with their hosts where there are several.
func (t *manyWriter) pids(ws []int) string {
	var parts []string
	for i, w := range ws {
		if i == maxPIDs {
			parts = append(parts, fmt.Sprintf("and %s more", number(len(ws)-i)))
			break
		}
		s := t.m.PID(t.m.Workers[w].Host, t.m.Workers[w].PID)
		if t.m.Workers[w].Ended {
			s += " (has ended)"
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, ", ")
}

func (t *manyWriter) failures() {
	for i, f := range t.m.Failures {
		if i == maxFailures {
			t.prose("", plain, fmt.Sprintf("and %s more", count(len(t.m.Failures)-i, "failure")))
			break
		}
		t.prose("not looked at: ", yellow, f.Error)
	}
	for _, s := range t.m.Sources {
		if s.Truncated {
			t.prose("note: ", plain, s.Name+" is cut off; what precedes the cut is reported")
		}
		if s.Damage != "" {
			t.prose("note: ", plain, s.Name+": "+s.Damage+"; what precedes it is reported")
		}
	}
}

func (t *manyWriter) cost() {
	m := t.m
	var most, all int64
	for i := range m.Workers {
		most, all = max(most, m.Workers[i].Paused), all+m.Workers[i].PausedUS
	}
	s := count(m.Looks, "look") + " at " + count(len(m.Workers), "worker")
	if len(m.Hosts) > 1 {
		s += " on " + count(len(m.Hosts), "host")
	}
	if m.Rounds > 1 {
		s += " in " + count(m.Rounds, "round")
	}
	if d := m.To.Sub(m.From); d > 0 {
		s += ", over " + duration(d.Microseconds())
	}
	if most > 0 {
		s += fmt.Sprintf("; the longest pause of a worker was %s, a look took %s of its time on average", duration(most), duration(all/int64(max(1, m.Looks))))
	}
	t.prose("", dim, s)
}

// Ages says for how long a group's requests have run, "" when nobody knows.
func Ages(a *triage.Ages) string {
	if a == nil || a.Max <= 0 {
		return ""
	}
	least, most := duration(a.Min*1000), duration(a.Max*1000)
	if least == most {
		return most
	}
	return fmt.Sprintf("%s to %s, half of them for %s or more", least, most, duration(a.Median*1000))
}
