package rules

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// maxExplained bounds the distinct stacks that one condition is explained on,
// and maxNear the other rules that are named.
const (
	maxExplained = 500
	maxNear      = 3
)

// Explanation says why a rule said what it said of an observation.
type Explanation struct {
	Result
	Match    Explained // the condition that the rule is
	Bind     []Value   // what bind gives
	Score    []Value   // base, then each bonus that holds, then what unknown frames cost
	Nearest  []Near    // other rules, the nearest first
	Reported bool      // the finding is shown
}

// Explained is one condition.
type Explained struct {
	What    string // all, any, not, stack or expr
	Verdict Verdict
	Missing []string
	Of      []Explained // of all, any and not

	// Of a condition about stacks.
	In       string
	Share    float64
	Matched  int // events
	Events   int
	Patterns []Reached

	// Of an expression.
	Expr   string
	Values []Value
	Err    string
}

// Value is a name and what it stands for; Missing says how to get it when it
// was not collected.
type Value struct{ Name, Value, Missing string }

// Reached is how far one alternative got.
type Reached struct {
	Name    string // of the alternative; "" for the only one
	PHP     bool
	Matched int // events whose stack it matches
	Of      int // events that were looked at
	// Of the stack that it got furthest on without matching; Line is 0 when
	// there is none.
	Line    int    // the line of the pattern that no frame met, from 1
	Wants   string // that line
	File    string // the rule's file, and where the line is in it
	At      int
	Lines   int // how many lines the pattern has
	Passed  int // lines before Line that were met
	Frame   int // the frame that stands there, counted among its kind; -1 when the stack ends
	FrameIs string
	Times   int // events with a stack on which it got this far
}

// Near is a rule that nearly said the same.
type Near struct {
	Rule     *Rule
	Verdict  Verdict
	Score    float64 // of its finding
	Fraction float64 // of its conditions that hold, as far as they do
}

// Explain says why rule id says what it says of an observation.
func (s *Set) Explain(id string, o *Observation, opt Options) (*Explanation, error) {
	r, err := s.Find(id)
	if err != nil {
		return nil, err
	}
	rep, err := s.Evaluate(o, opt)
	if err != nil {
		return nil, err
	}
	x := s.evaluation(o)
	res := rep.of(r)
	e := &Explanation{Result: *res}
	if err := attempt(func() { e.Match = x.explain(r, r.match) }); err != nil {
		return nil, fmt.Errorf("rule %s can't be explained: %w", id, err)
	}
	e.Reported = res.Finding != nil && res.Hidden == ""
	for _, n := range slices.Sorted(maps.Keys(r.bind)) {
		e.Bind = append(e.Bind, x.value(n, r.bind[n]))
	}
	if res.Verdict == Match {
		e.Score = x.scoreParts(r, res.Finding)
	}
	for i := range rep.Results {
		if other := &rep.Results[i]; other.Rule != r && other.Skipped == "" {
			n := Near{Rule: other.Rule, Verdict: other.Verdict}
			// A rule that fails is as far away as can be.
			_ = attempt(func() { n.Fraction = x.near(other.Rule.match) })
			if other.Finding != nil {
				n.Score = other.Finding.Confidence
			}
			e.Nearest = append(e.Nearest, n)
		}
	}
	slices.SortStableFunc(e.Nearest, func(a, b Near) int {
		if (a.Verdict == Match) != (b.Verdict == Match) {
			return cmp.Compare(b.Verdict, a.Verdict)
		}
		return cmp.Or(cmp.Compare(b.Fraction, a.Fraction), cmp.Compare(b.Score, a.Score))
	})
	e.Nearest = e.Nearest[:min(len(e.Nearest), maxNear)]
	return e, nil
}

// attempt turns a panic into an error: one bad rule must not take others down.
func attempt(f func()) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	f()
	return nil
}

func (x *evaluation) explain(r *Rule, n node) Explained {
	said := n.eval(x)
	e := Explained{Verdict: said.verdict, Missing: describeMissing(said.missing)}
	switch n := n.(type) {
	case *allNode:
		e.What, e.Of = "all", x.explainAll(r, n.of)
	case *anyNode:
		e.What, e.Of = "any", x.explainAll(r, n.of)
	case *notNode:
		e.What, e.Of = "not", x.explainAll(r, []node{n.of})
	case *exprNode:
		e.What, e.Expr = "expr", n.e.text
		for _, u := range n.e.evidence() {
			e.Values = append(e.Values, x.fact(u))
		}
		var unknown *errUnknown
		if _, err := n.e.truth(x.vars); err != nil && !errors.As(err, &unknown) {
			e.Err = err.Error()
		}
	case *seenNode:
		e.What, e.In, e.Share = "stack", n.in, n.share
		weights, c := x.weights(n), n.look(x)
		e.Matched, e.Events = c.matched, c.of
		for _, alts := range [][]alternative{n.native, n.php} {
			for i := range alts {
				e.Patterns = append(e.Patterns, x.reached(r, &alts[i], weights))
			}
		}
	}
	return e
}

func (x *evaluation) explainAll(r *Rule, of []node) []Explained {
	out := make([]Explained, len(of))
	for i, c := range of {
		out[i] = x.explain(r, c)
	}
	return out
}

// weight is a distinct stack and how many events a condition looks at have it.
type weight struct{ stack, n int }

// weights lists the stacks that a condition looks at, the most frequent first.
func (x *evaluation) weights(n *seenNode) []weight {
	var out []weight
	for i := range x.o.Stacks {
		if w := n.weight(x.c, i); w > 0 {
			out = append(out, weight{i, w})
		}
	}
	slices.SortStableFunc(out, func(a, b weight) int { return cmp.Compare(b.n, a.n) })
	return out
}

// fact is a piece of evidence and its value.
func (x *evaluation) fact(name string) Value {
	v, ok := x.vars[name]
	if !ok {
		return Value{Name: name, Missing: missing(name)}
	}
	return Value{Name: name, Value: fmt.Sprint(v)}
}

func (x *evaluation) value(name string, e *expr) Value {
	v, err := e.eval(x.vars)
	if err != nil {
		return Value{Name: name, Missing: err.Error()}
	}
	return Value{Name: name, Value: fmt.Sprint(v.Value())}
}

func (x *evaluation) scoreParts(r *Rule, f *Finding) []Value {
	out := []Value{{Name: "base", Value: fmt.Sprintf("%.2f", r.score.base)}}
	sum := r.score.base
	for _, p := range r.score.plus {
		ok, err := p.if_.truth(x.vars)
		switch {
		case err != nil:
			out = append(out, Value{Name: p.if_.text, Missing: err.Error()})
		case ok:
			sum += p.add
			out = append(out, Value{Name: p.if_.text, Value: fmt.Sprintf("%+.2f", p.add)})
		}
	}
	if r.score.perUnknown != 0 {
		out = append(out, Value{Name: "unknown frames", Value: fmt.Sprintf("%+.2f", min(0, f.Confidence-min(1, sum)))})
	}
	return out
}

// reached finds how far an alternative got.
func (x *evaluation) reached(r *Rule, a *alternative, weights []weight) Reached {
	out := Reached{Name: a.name, PHP: a.prg.php, File: r.File, Lines: len(a.prg.p.elements), Frame: -1}
	kind := a.prg.kind()
	best := progress{element: -1}
	for i, w := range weights {
		if i >= maxExplained {
			break
		}
		out.Of += w.n
		s := x.sight(w.stack)
		if _, ok := a.prg.run(s.Frames, s.views[kind]); ok {
			out.Matched += w.n
			continue
		}
		switch p := a.prg.progress(s.Frames, s.views[kind]); {
		case p.element > best.element:
			best, out.Times = p, w.n
			out.Frame, out.FrameIs = p.frame, ""
			if p.frame >= 0 {
				out.FrameIs = frameText(&s.Frames[s.views[kind][p.frame]])
			}
		case p.element == best.element:
			out.Times += w.n
		}
	}
	if best.element >= 0 {
		e := &a.prg.p.elements[min(best.element, len(a.prg.p.elements)-1)]
		out.Line, out.Wants, out.At, out.Passed = e.no, e.text, e.at.line, best.element
	}
	return out
}

// kind is that of the frames that a program looks at.
func (g *program) kind() FrameKind {
	if g.php {
		return PHP
	}
	return Native
}

// frameText writes a frame as a backtrace would.
func frameText(f *Frame) string {
	switch {
	case f.Unresolved() && f.Module == "":
		return "??"
	case f.Unresolved():
		return "?? from " + f.Module
	case f.Kind == PHP:
		s := f.Name + "()"
		if f.Class != "" {
			s = f.Class + "::" + s
		}
		if f.File != "" {
			s += fmt.Sprintf(" at %s:%d", f.File, f.Line)
		}
		return s
	}
	return f.Name
}

// near is how much of a condition holds, from 0 to 1.
func (x *evaluation) near(n node) float64 {
	switch n := n.(type) {
	case *allNode:
		sum := 0.0
		for _, c := range n.of {
			sum += x.near(c)
		}
		return sum / float64(max(1, len(n.of)))
	case *anyNode:
		most := 0.0
		for _, c := range n.of {
			most = max(most, x.near(c))
		}
		return most
	case *seenNode:
		return x.nearSeen(n)
	}
	return float64(n.eval(x).verdict) / float64(Match)
}

// nearSeen looks at the most frequent stack.
func (x *evaluation) nearSeen(n *seenNode) float64 {
	if n.eval(x).verdict == Match {
		return 1
	}
	weights := x.weights(n)
	if len(weights) == 0 {
		return 0
	}
	parts, sum := 0.0, 0.0
	for _, alts := range [][]alternative{n.native, n.php} {
		if len(alts) == 0 {
			continue
		}
		most := 0.0
		for i := range alts {
			g := alts[i].prg
			s := x.sight(weights[0].stack)
			if _, ok := g.run(s.Frames, s.views[g.kind()]); ok {
				most = 1
			} else if p := g.progress(s.Frames, s.views[g.kind()]); p.element > 0 {
				most = max(most, float64(p.element)/float64(1+len(g.p.elements)))
			}
		}
		sum, parts = sum+most, parts+1
	}
	return sum / parts
}

// String writes the explanation of a pattern on one line.
func (r *Reached) String() string {
	name := r.Name
	if name == "" {
		name = "stack"
		if r.PHP {
			name = "php"
		}
	}
	if r.Line == 0 {
		return fmt.Sprintf("%s matches %d of %d", name, r.Matched, r.Of)
	}
	where := "the stack ends"
	frame := "frame"
	if r.PHP {
		frame = "PHP frame"
	}
	if r.Frame >= 0 {
		where = fmt.Sprintf("%s #%d is %s", frame, r.Frame, r.FrameIs)
	}
	wants := strings.Join(strings.Fields(r.Wants), " ")
	text := fmt.Sprintf("%s line %d wants %s, %s", name, r.Line, wants, where)
	if r.Matched > 0 {
		text += fmt.Sprintf("; %d of %d match", r.Matched, r.Of)
	}
	return text
}
