package report

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/stack"
)

// TextOptions say how the text form looks.
type TextOptions struct {
	Color bool // ANSI colours
	Width int  // columns at which prose wraps; 0 never does. Frames are never wrapped.
}

// Confidence below which a finding is worded with doubt.
const (
	certain  = 0.8
	probable = 0.6
)

// listed is how many undetermined rules the text names; the JSON has them all.
const listed = 5

// Text writes r for a person: the cause, its place, evidence and remedy, then
// the stacks, then how it was observed.
func Text(w io.Writer, r *Report, o TextOptions) error {
	t := &textWriter{printer: newPrinter(w, o), r: r}
	t.headline()
	for i := range r.Findings {
		if i > 0 {
			t.end()
			t.also(&r.Findings[i])
		}
		t.finding(&r.Findings[i])
	}
	if len(r.Findings) == 0 {
		t.unexplained()
	}
	t.undetermined()
	t.variables()
	t.stacks()
	t.end()
	t.observed()
	for _, n := range r.Notes {
		t.prose("note: ", plain, n)
	}
	return t.w.Flush()
}

type textWriter struct {
	*printer
	r *Report
}

func (t *textWriter) headline() {
	t.put(bold, t.subject()+": ")
	switch {
	case len(t.r.Findings) > 0:
		f := &t.r.Findings[0]
		t.line(severityStyle(f), doubt(f)+title(f))
	case len(t.r.Stacks) == 0:
		t.line(yellow, "nothing was observed")
	case snapshot(&t.r.Observation) && len(t.r.Undetermined) > 0:
		t.line(yellow, "one look tells where it is, not why")
	case len(t.r.Undetermined) > 0 && t.r.Undetermined[0].Fits != "":
		t.line(yellow, "not proven, but its stacks fit: "+title(&Finding{Title: t.r.Undetermined[0].Fits}))
	default:
		t.line(yellow, "no rule explains this")
	}
}

// subject is "PHP worker 4242 (php 8.2.36, cli)".
func (t *textWriter) subject() string {
	g := &t.r.Target
	version := "php of unknown version"
	if g.PHPVersion != "" {
		version = "php " + g.PHPVersion
	}
	for _, s := range []struct {
		on   bool
		text string
	}{{g.ZTS, " zts"}, {g.DebugBuild, " debug"}, {g.SAPI != "", ", " + g.SAPI}} {
		if s.on {
			version += s.text
		}
	}
	if g.PID == 0 { // stacks that someone pasted
		return fmt.Sprintf("PHP worker (%s)", version)
	}
	return fmt.Sprintf("PHP worker %d (%s)", g.PID, version)
}

// doubt words how far a finding is to be believed.
func doubt(f *Finding) string {
	word := ""
	switch {
	case f.Confidence < probable:
		word = "possibly: "
	case f.Confidence < certain:
		word = "probably: "
	}
	if f.Kind == Benign {
		return word + "healthy: "
	}
	return word
}

// title is the rule's title as the end of a sentence: an article loses its
// capital, a name keeps it.
func title(f *Finding) string {
	if f.Title == "" {
		return f.Rule
	}
	first, rest, ok := strings.Cut(f.Title, " ")
	switch first {
	case "A", "An", "The", "One", "This":
		if ok {
			return strings.ToLower(first) + " " + rest
		}
	}
	return f.Title
}

func severityStyle(f *Finding) style {
	switch {
	case f.Kind == Benign:
		return green
	case f.Severity == "high" || f.Severity == "critical":
		return red
	case f.Severity == "medium":
		return yellow
	}
	return bold
}

func (t *textWriter) also(f *Finding) {
	t.put(plain, "also, ")
	t.line(severityStyle(f), doubt(f)+title(f))
}

func (t *textWriter) finding(f *Finding) {
	t.site(f.PHP)
	t.request(f == &t.r.Findings[0])
	if f.Message != "" {
		t.prose("  ", plain, strings.TrimSpace(f.Message))
	}
	t.prose("  evidence: ", plain, evidence(f, t.r))
	if f.Fix != "" {
		// The rule's own text, which YAML may have broken into lines.
		t.prose("  fix: ", plain, strings.Join(strings.Fields(f.Fix), " "))
	}
	why := fmt.Sprintf("%s, confidence %.2f", f.Rule, f.Confidence)
	if f.Severity != "" && f.Kind != Benign {
		why = fmt.Sprintf("%s, severity %s, confidence %.2f", f.Rule, f.Severity, f.Confidence)
	}
	t.prose("  rule: ", dim, why)
}

func (t *textWriter) site(s Site) {
	if s.Function == "" && s.File == "" {
		return
	}
	t.put(plain, "  ")
	t.put(bold, call(s.Class, s.Function)+at(s.File, s.Line))
	t.end()
}

func (t *textWriter) request(wanted bool) {
	q := t.r.Target.Request
	if q == nil || !wanted {
		return
	}
	s := what(q)
	if q.Script != "" {
		s += " (" + q.Script + ")"
	}
	if age, known := q.Age(); known {
		s += ", for " + duration(age*1000)
		// A worker that hangs begins nothing: what was seen before is of other requests.
		if age < t.r.Observation.DurationMS {
			s += ", begun while the worker was watched"
		}
	}
	t.prose("  request: ", plain, s)
}

func what(q *capture.Request) string { return strings.TrimSpace(q.Method + " " + q.URI) }

// requestOf is ", GET /slow.php" where threads work on requests of their own.
func (t *textWriter) requestOf(s *Stack) string {
	out := ""
	for i := range t.r.Target.Requests {
		q := &t.r.Target.Requests[i]
		if slices.Contains(s.TIDs, q.TID) {
			out += ", " + what(&q.Request)
		}
	}
	return out
}

// evidence is every piece of it in one sentence, with the quorum last.
func evidence(f *Finding, r *Report) string {
	var parts []string
	for _, e := range f.Evidence {
		// The number of matching stacks is the quorum, which is said below; with no stack there is none.
		if e.N == f.Matched && e.FromBytes == 0 && e.ToBytes == 0 {
			continue
		}
		s := e.What
		if e.N > 1 {
			s += " ×" + number(e.N)
		}
		if e.ToBytes > 0 || e.FromBytes > 0 {
			s += ", " + size(e.FromBytes) + " → " + size(e.ToBytes)
			// A mean, and called so: single steps are not in the report.
			if grown := e.ToBytes - e.FromBytes; e.ToBytes > e.FromBytes && e.N > 1 {
				s += ", +" + size(grown/uint64(e.N)) + " each on average"
			}
		}
		parts = append(parts, s)
	}
	if f.Of > 0 {
		verb := "match"
		if f.Matched == 1 {
			verb = "matches"
		}
		parts = append(parts, fmt.Sprintf("%s of %s %s", number(f.Matched), count(f.Of, basis(f, r)), verb))
	}
	switch {
	case len(parts) > 0:
	case len(r.Stacks) == 0:
		return "the figures above; no stack was seen"
	default:
		return "none beside the stack"
	}
	return strings.Join(parts, "; ")
}

// basis names what Finding.Of counts, where that is plain.
func basis(f *Finding, r *Report) string {
	switch o := &r.Observation; {
	case f.Of == o.Stops && f.Of != o.Samples:
		return "stop"
	case f.Of == o.Samples && f.Of != o.Stops:
		return "sample"
	}
	return "event"
}

// unexplained says where the worker is when no rule says why.
func (t *textWriter) unexplained() {
	for i := range t.r.Stacks {
		if f := userFrame(t.r.Stacks[i].Frames); f != nil {
			t.site(Site{Function: f.Function, Class: f.Class, File: f.File, Line: f.Line})
			break
		}
	}
	t.request(true)
	if s := activity(t.r); s != "" {
		t.prose("  ", plain, s)
	}
	if len(t.r.Stacks) == 0 {
		t.prose("  ", plain, "no breakpoint was hit and no sample was taken")
	}
}

// userFrame is the innermost PHP frame that is not an internal function.
func userFrame(fs []stack.Frame) *stack.Frame {
	for i := range fs {
		if fs[i].Kind == stack.PHP && !fs[i].Internal {
			return &fs[i]
		}
	}
	return nil
}

// leads is how many rules are named whose stacks fit what one look saw.
const leads = 3

// names are the pieces of evidence alone, without how to get them.
func names(missing []string) string {
	var out []string
	for _, m := range missing {
		name, _, _ := strings.Cut(m, " (needs:")
		out = append(out, name)
	}
	return strings.Join(out, ", ")
}

func (t *textWriter) undetermined() {
	us := t.r.Undetermined
	if len(us) == 0 {
		return
	}
	if len(t.r.Findings) > 0 {
		t.end()
		// Beside a sure finding they matter little.
		if t.r.Findings[0].Confidence >= certain {
			t.prose("  ", dim, count(len(us), "other rule")+" could not be decided; --format json says what was missing")
			return
		}
	}
	if snapshot(&t.r.Observation) {
		for _, u := range us[:min(len(us), leads)] {
			if u.Fits != "" {
				t.prose("  ", plain, "it may be that "+title(&Finding{Title: u.Fits})+" ("+u.Rule+"): its stacks fit; unknown is "+names(u.Missing))
			}
		}
		// That most rules need more than a look is no news about each of them.
		ofPool := 0
		for _, u := range us {
			if slices.ContainsFunc(u.Missing, func(s string) bool { return strings.HasPrefix(s, "pool.") }) {
				ofPool++
			}
		}
		t.want("more than one look", len(us)-ofPool, fmt.Sprintf("phpwhy attach %d", t.r.Target.PID))
		t.want("the pool's other workers, too", ofPool, "phpwhy collect")
		return
	}
	t.prose("  ", plain, count(len(us), "rule")+" could not be decided:")
	for _, u := range us[:min(len(us), listed)] {
		s := u.Rule
		if len(u.Missing) > 0 {
			s += ": missing " + strings.Join(u.Missing, "; ")
		} else if slices.ContainsFunc(t.r.Notes, func(n string) bool { return strings.HasPrefix(n, u.Rule+": ") }) {
			s += ": it failed, see the note"
		}
		t.prose("    ", plain, s)
	}
	if n := len(us) - listed; n > 0 {
		t.prose("    ", plain, fmt.Sprintf("and %s more", number(n)))
	}
}

// want says how many rules want something that one look has not, and what has it. Of
// a core there is no more to be had.
func (t *textWriter) want(what string, n int, try string) {
	if n == 0 {
		return
	}
	s := fmt.Sprintf("rules that want %s: %s", what, number(n))
	if t.r.Observation.Engine != fromCore {
		s += "; try " + try
	}
	t.prose("  ", plain, s)
}

func (t *textWriter) observed() {
	o := &t.r.Observation
	paused := fmt.Sprintf("worker paused %s in all, %s at most", duration(o.PausedUSTotal), duration(o.PausedUSMax))
	events := count(o.Stops, "stop") + ", " + count(o.Samples, "sample")
	switch {
	case o.Engine == fromCore:
		t.prose("", dim, "from a core of "+count(o.Samples, "thread"))
	case snapshot(o):
		t.prose("", dim, "one look at "+count(o.Samples, "thread")+"; "+paused)
	case o.Engine == "none":
		t.prose("", dim, fmt.Sprintf("looked at now and then for %s: %s; %s", duration(o.DurationMS*1000), count(o.Samples, "sample"), paused))
	case o.Engine == "" && t.r.Target.PID == 0: // pasted text, of which nobody knows when it was
		t.prose("", dim, "from text: "+events)
	case o.Engine == "": // the end of the capture is lost, and the cost with it
		t.prose("", dim, fmt.Sprintf("observed %s at least: %s", duration(o.DurationMS*1000), events))
	default:
		t.prose("", dim, fmt.Sprintf("observed %s with %s: %s; %s", duration(o.DurationMS*1000), o.Engine, events, paused))
	}
	for _, b := range o.Breakpoints {
		t.prose("", dim, breakpoint(b))
	}
	if parts := engine(t.r.Facts); len(parts) > 0 {
		t.prose("", dim, "php: "+strings.Join(parts, "; "))
	}
}

// fromCore stands for an engine where a core file was read.
const fromCore = "core"

// snapshot reports whether this is a dump: no breakpoints, one look. An attach
// without breakpoints samples for a while, and so do several looks of collect.
func snapshot(o *Observation) bool {
	return o.Engine == "none" && o.DurationMS == 0 || o.Engine == fromCore
}

func breakpoint(b capture.Breakpoint) string {
	s := "breakpoint " + b.Symbol
	if b.Module != "" {
		s += " in " + b.Module
	}
	if b.Hits == 1 {
		return s + ": 1 hit"
	}
	return s + ": " + number(b.Hits) + " hits"
}

// call is a PHP function as code calls it.
func call(class, function string) string {
	f := stack.Frame{Kind: stack.PHP, Class: class, Function: function}
	return f.QualifiedName() + "()"
}

func at(file string, line int) string {
	switch {
	case file == "":
		return ""
	case line <= 0:
		return " at " + file
	}
	return fmt.Sprintf(" at %s:%d", file, line)
}
