package report

import (
	_ "embed"
	"fmt"
	"io"
	"slices"

	"github.com/phpwhy/phpwhy/internal/compare"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/triage"
)

//go:embed diff-v1.schema.json
var diffSchema []byte

// DiffJSONSchema is the JSON Schema (draft 2020-12) of what DiffJSON writes.
func DiffJSONSchema() []byte { return slices.Clone(diffSchema) }

// What the text form of a comparison lists; the JSON has everything.
const (
	diffStacks  = 8
	diffFrames  = 12
	diffWorkers = 20
)

// DiffJSON writes d as one line of JSON.
func DiffJSON(w io.Writer, d *compare.Diff) error { return writeJSON(w, d) }

// DiffText writes d for a person: findings, then stacks, then workers.
func DiffText(w io.Writer, d *compare.Diff, o TextOptions) error {
	t := &diffWriter{newPrinter(w, o)}
	t.side("A", &d.A)
	t.side("B", &d.B)
	t.findings(d)
	t.stacks(d)
	t.workers(d)
	for _, n := range d.Notes {
		t.prose("note: ", plain, n)
	}
	return t.w.Flush()
}

type diffWriter struct{ *printer }

func (t *diffWriter) side(name string, s *compare.Side) {
	from := ""
	for i, f := range s.Sources {
		if i == 3 {
			from += fmt.Sprintf(" and %s more", number(len(s.Sources)-i))
			break
		}
		from += " " + f
	}
	t.prose(name+": ", plain, fmt.Sprintf("%s, %s%s", count(s.Workers, "worker"), count(s.Events, "event"), parenthesis(from)))
}

func parenthesis(s string) string {
	if s == "" {
		return ""
	}
	return " (" + s[1:] + ")"
}

// mark is how a change begins its line, the same width for all.
func mark(c compare.Change) (string, style) {
	switch c {
	case compare.New:
		return "+ new    ", red
	case compare.Gone:
		return "- gone   ", green
	case compare.Grown:
		return "> grown  ", yellow
	case compare.Shrunk:
		return "< shrunk ", green
	case compare.Moved:
		return "~ moved  ", yellow
	}
	return "= same   ", dim
}

// percent keeps a digit where a whole number would say nothing.
func percent(v float64) string {
	if v > 0 && v < 0.1 || v > 0.99 && v < 1 {
		return fmt.Sprintf("%.1f %%", 100*v)
	}
	return fmt.Sprintf("%.0f %%", 100*v)
}

func (t *diffWriter) findings(d *compare.Diff) {
	t.end()
	t.line(bold, "findings:")
	if len(d.Findings) == 0 {
		t.line(dim, "  none in A, none in B")
	}
	for i := range d.Findings {
		f := &d.Findings[i]
		m, s := mark(f.Change)
		if f.Kind == Benign && s == red {
			s = plain
		}
		t.put(s, "  "+m)
		t.put(bold, f.Title)
		t.put(plain, fmt.Sprintf(": %s → %s", number(f.WorkersA), count(f.WorkersB, "worker")))
		t.line(dim, " ("+f.Rule+")")
		if f.Change != compare.Same && f.Message != "" {
			t.prose("           ", plain, f.Message)
		}
	}
}

func (t *diffWriter) stacks(d *compare.Diff) {
	t.end()
	t.line(bold, "stacks, by their share of all events:")
	for i := range d.Stacks {
		if i == diffStacks {
			t.line(dim, fmt.Sprintf("  %s more; --format json has every one", number(len(d.Stacks)-i)))
			break
		}
		s := &d.Stacks[i]
		m, style := mark(s.Change)
		t.put(style, "  "+m)
		t.line(plain, fmt.Sprintf("%s → %s, %s → %s", percent(s.ShareA), percent(s.ShareB), number(s.CountA), count(s.CountB, "event")))
		t.frames(s.Frames)
	}
	t.line(dim, fmt.Sprintf("  %s within 1 %% of what they were", count(d.SameStacks, "stack")))
}

// frames shows a stack's leaf and its PHP frames.
func (t *diffWriter) frames(fs []stack.Frame) {
	shown, left := 0, 0
	for i := range fs {
		f := &fs[i]
		if shown == diffFrames || f.Kind != stack.PHP && shown >= diffFrames/2 {
			left++
			continue
		}
		shown++
		if f.Kind == stack.PHP {
			t.put(dim, "    PHP  ")
			t.line(cyan, call(f.Class, f.Function)+at(f.File, f.Line))
			continue
		}
		name := f.QualifiedName()
		if f.Unresolved() && f.Module != "" {
			name = fmt.Sprintf("?? from %s+0x%x", f.Module, f.Offset)
		}
		t.line(plain, "         "+name)
	}
	if left > 0 {
		t.line(dim, fmt.Sprintf("         … %s", count(left, "more frame")))
	}
}

func (t *diffWriter) workers(d *compare.Diff) {
	t.end()
	t.line(bold, "workers:")
	for i := range d.Workers {
		if i == diffWorkers {
			t.line(dim, fmt.Sprintf("  %s more; --format json has every one", number(len(d.Workers)-i)))
			break
		}
		w := &d.Workers[i]
		m, s := mark(w.Change)
		if w.Change == compare.New || w.Change == compare.Gone {
			s = plain // that workers come and go is neither good nor bad
		}
		t.put(s, "  "+m)
		text := fmt.Sprintf("pid %d", w.PID)
		if w.Host != "" {
			text += " on " + w.Host
		}
		switch w.Change {
		case compare.New:
			text += ": " + doing(w.DoesB, w.SiteB)
		case compare.Gone:
			text += ": " + doing(w.DoesA, w.SiteA)
		default:
			text += ": " + doing(w.DoesA, w.SiteA) + " → " + doing(w.DoesB, w.SiteB)
		}
		t.prose("", plain, text)
	}
	t.line(dim, fmt.Sprintf("  %s as before", count(d.SameWorkers, "worker")))
}

func doing(what string, s triage.Site) string {
	if what == "" {
		what = "no rule explains it"
	}
	if s.Function == "" && s.File == "" {
		return what
	}
	return what + ", " + call(s.Class, s.Function) + at(s.File, s.Line)
}
