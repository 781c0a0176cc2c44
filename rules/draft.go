package rules

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	// maxDraftLines bounds the frame lines of a drafted alternative,
	// maxDraftAlternatives how many of them there are.
	maxDraftLines        = 16
	maxDraftAlternatives = 4
	// slack is how many frames more a build with symbols shows where a
	// stripped one has unknown frames: what is inlined there.
	slack = 4
)

// ErrNothingToDraft is returned for stacks in which no frame has a name that
// could be recognised again.
var ErrNothingToDraft = errors.New("no frame in these stacks has a name to recognise it by")

// ErrNotDistinct is returned when the stacks that a rule must not match look
// the same.
var ErrNotDistinct = errors.New("the frames do not tell it from a capture that must not match; add an expression by hand")

// DraftOptions say what kind of rule Draft makes.
type DraftOptions struct {
	ID    string // "" for one made from the frames
	Title string
	// Not are observations that the rule must not match.
	Not []*Observation
}

// Draft is a rule made from what was observed of one process.
type Draft struct {
	ID   string
	Text string // the rule's file
	Rule *Rule
	// Site is the place that the rule captures, "" for none.
	Site  string
	Score float64
	Notes []string // what the author should know
}

// MakeDraft writes a rule that matches an observation, from the frames that
// most of its stacks begin with. The rule loads, and matches.
func MakeDraft(o *Observation, opt DraftOptions) (*Draft, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	w := newDrafter(o, opt)
	if w.alternatives(); len(w.native) == 0 && w.php == "" {
		return nil, ErrNothingToDraft
	}
	for {
		d, err := w.draft()
		if err != nil {
			return nil, err
		}
		clash := false
		for _, n := range opt.Not {
			rep, err := only(d.Rule).Evaluate(n, Options{})
			if err != nil {
				return nil, err
			}
			clash = clash || rep.Results[0].Verdict == Match
		}
		if !clash {
			return d, nil
		}
		if !w.longer() {
			return nil, ErrNotDistinct
		}
	}
}

// only is a set of one rule.
func only(r *Rule) *Set { return &Set{rules: []*Rule{r}, byID: map[string]*Rule{r.ID: r}} }

// drafter holds a rule in the making.
type drafter struct {
	o      *Observation
	opt    DraftOptions
	x      *evaluation
	in     string
	native []sketch
	php    string
	chain  bool
	vars   map[string]any
}

func newDrafter(o *Observation, opt DraftOptions) *drafter {
	w := &drafter{o: o, opt: opt, x: only(&Rule{}).evaluation(o), in: inSamples}
	if stops, _ := count(o); stops > 0 {
		w.in = inStops
	}
	w.vars = w.x.vars
	steps, _ := w.vars["chain.steps"].(int64)
	grows, _ := w.vars["chain.monotonic"].(bool)
	w.chain = steps >= 8 && grows
	return w
}

// longer takes one frame more into each alternative; false when there is none.
func (w *drafter) longer() bool {
	grown := false
	for i := range w.native {
		k := &w.native[i]
		for k.cut < len(k.frames) {
			k.cut++
			lines := linesOf(k.frames, k.cut)
			if len(lines) > len(k.lines) {
				k.lines, grown = lines, true
				break
			}
		}
	}
	return grown
}

// draft writes the rule, first without a share to see which one holds.
func (w *drafter) draft() (*Draft, error) {
	id := w.opt.ID
	if id == "" {
		id = w.id()
	}
	if !ruleID.MatchString(id) {
		return nil, fmt.Errorf("%q is no rule id: lower-case words joined by dots, such as my.report-loop", id)
	}
	d := &Draft{ID: id}
	share := 0.0
	for range 2 {
		d.Text = w.text(id, share)
		r, ps := Parse(id+".yaml", []byte(d.Text))
		if len(ps) > 0 {
			return nil, fmt.Errorf("the draft does not load: %v", ps[0])
		}
		rep, err := only(r).Evaluate(w.o, Options{})
		if err != nil {
			return nil, err
		}
		res := rep.Results[0]
		if res.Verdict != Match {
			return nil, fmt.Errorf("%w (the draft is %s%s)", ErrNothingToDraft, res.Verdict, res.why())
		}
		f := res.Finding
		d.Rule, d.Score = r, f.Confidence
		if f.Site != nil {
			d.Site = f.Site.text()
		}
		if f.Of > 0 {
			share = max(0.05, min(0.8, math.Floor(9*float64(f.Matched)/float64(f.Of))/10))
		}
	}
	if w.php == "" {
		d.Notes = append(d.Notes, "no PHP frames are known here, so the rule names no place; with a capture from phpwhy attach, add: php: user as=site")
	}
	if len(w.opt.Not) == 0 {
		d.Notes = append(d.Notes, "add a capture that must not match (--not CAPTURE): a worker that does the same work and comes back")
	}
	return d, nil
}

// id is made of the leaf and of the last function that the pattern wants.
func (w *drafter) id() string {
	var words []string
	if len(w.native) > 0 {
		lines := w.native[0].lines
		for _, l := range []string{lines[0], lines[len(lines)-1]} {
			f := strings.Fields(strings.TrimSuffix(strings.TrimPrefix(l, "leaf "), " unk"))
			if n := f[len(f)-1]; nameable().MatchString(n) && !slices.Contains(words, n) {
				words = append(words, n)
			}
		}
	}
	s := strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(strings.Join(words, "-")), "-"), "-")
	if s == "" {
		s = "rule"
	}
	return "my." + s
}

// Quote writes a text as a YAML scalar in double quotes, which knows Go's escapes.
func Quote(s string) string { return strconv.QuoteToGraphic(s) }

// text writes the file.
func (w *drafter) text(id string, share float64) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	title := w.opt.Title
	if title == "" {
		title = "what " + id + " is about, in a few words"
	}
	line("schema: %s\nid: %s\nrevision: 1\ntitle: %s\nseverity: medium\nmaturity: experimental\nkind: cause", Schema, id, Quote(title))
	line("match:\n  all:\n    - in: %s", w.in)
	if share > 0 {
		line("      share: %g", share)
	}
	block := func(indent, key, text string) {
		line("%s%s: |", indent, key)
		for l := range strings.SplitSeq(text, "\n") {
			line("%s  %s", indent, l)
		}
	}
	switch len(w.native) {
	case 0:
	case 1:
		block("      ", "stack", strings.Join(w.native[0].lines, "\n"))
	default:
		line("      stack:")
		for i, k := range w.native {
			block("        ", fmt.Sprintf("way%d", i+1), strings.Join(k.lines, "\n"))
		}
	}
	if w.php != "" {
		block("      ", "php", w.php)
	}
	if w.chain {
		line("    - expr: chain.steps >= 8 && chain.monotonic")
	}
	w.evidence(line)
	if w.chain {
		line("bind:\n  n: chain.steps\n  grown: chain.grown_bytes")
	}
	line("score:\n  base: 0.7\n  per_unknown: -0.02\n  report_at: 0.5")
	message := strings.NewReplacer("{{", "{ {", "}}", "} }").Replace(title)
	if w.chain {
		message += ": {{n}} growths while watched, {{grown|bytes}} in all"
	}
	if w.php != "" {
		message = "{{site}}: " + message
	}
	line("message: %s", Quote(message))
	line("explain: |\n  How it comes to this, for whoever is on call.\nfix: What to change in the code.")
	return b.String()
}

// evidence lists, as comments, what expressions could use: what is not nothing.
func (w *drafter) evidence(line func(string, ...any)) {
	first := true
	for _, n := range slices.Sorted(maps.Keys(w.vars)) {
		var v string
		switch x := w.vars[n].(type) {
		case int64:
			if x != 0 {
				v = fmt.Sprint(x)
			}
		case bool:
			if x {
				v = "true"
			}
		case float64:
			if x != 0 {
				// As an expression writes it: 100 is no double there.
				if v = fmt.Sprintf("%.4g", x); !strings.ContainsAny(v, ".e") {
					v += ".0"
				}
			}
		default: // texts and lists are the process's own words
		}
		if v == "" {
			continue
		}
		if first {
			line("    # Seen here, for further conditions (- expr: ...):")
			first = false
		}
		line("    #   %s = %s", n, v)
	}
}

// Similar names the rules of a set that say something of an observation or
// look for frames that a draft looks for, the nearest first.
func (s *Set) Similar(d *Draft, o *Observation) ([]Near, error) {
	rep, err := s.Evaluate(o, Options{})
	if err != nil {
		return nil, err
	}
	mine := d.Rule.functions()
	var out []Near
	for i := range rep.Results {
		res := &rep.Results[i]
		if res.Rule.ID == d.ID {
			continue
		}
		n := Near{Rule: res.Rule, Verdict: res.Verdict, Fraction: overlap(mine, res.Rule.functions())}
		if res.Finding != nil {
			n.Score = res.Finding.Confidence
		}
		if res.Verdict == Match || n.Fraction >= 0.3 {
			out = append(out, n)
		}
	}
	slices.SortStableFunc(out, func(a, b Near) int {
		switch {
		case (a.Verdict == Match) != (b.Verdict == Match):
			return int(b.Verdict) - int(a.Verdict)
		case a.Fraction > b.Fraction:
			return -1
		case a.Fraction < b.Fraction:
			return 1
		}
		return 0
	})
	return out[:min(len(out), maxNear)], nil
}

// functions are the exact native names that a rule's patterns have.
func (r *Rule) functions() map[string]bool {
	out := make(map[string]bool)
	for _, a := range r.alts {
		for i := range a.prg.p.elements {
			if e := &a.prg.p.elements[i]; !e.php {
				for _, n := range e.names {
					out[n] = true
				}
			}
		}
	}
	return out
}

// overlap is the share of a's names that are in b.
func overlap(a, b map[string]bool) float64 {
	n := 0
	for f := range a {
		if b[f] {
			n++
		}
	}
	return float64(n) / float64(max(1, len(a)))
}

// On is what the drafted rule says of another observation.
func (d *Draft) On(o *Observation) Verdict {
	rep, err := only(d.Rule).Evaluate(o, Options{})
	if err != nil {
		return Undetermined
	}
	return rep.Results[0].Verdict
}
