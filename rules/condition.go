package rules

import (
	"errors"

	"sort"

	"cel.dev/cel-go/cel"
	"gopkg.in/yaml.v3"
)

// Verdict is what a rule or a condition says of an observation.
type Verdict uint8

// The verdicts.
const (
	NoMatch Verdict = iota
	Undetermined
	Match
)

func (v Verdict) String() string { return [...]string{"no_match", "undetermined", "match"}[v] }

// node is a condition: all, any, not, stack and php patterns, or an expression.
type node interface {
	eval(x *evaluation) Verdict
	walk(func(node))
}

type (
	allNode  struct{ of []node }
	anyNode  struct{ of []node }
	notNode  struct{ of node }
	exprNode struct{ e *expr }
	// seenNode wants a share of the events to have a stack that matches.
	seenNode struct {
		in     string // stops, samples or any
		share  float64
		native []alternative // any of them
		php    []alternative // and any of these, when there are both
	}
	alternative struct {
		name string
		prg  *program
	}
)

func (n *allNode) walk(f func(node)) {
	f(n)
	for _, c := range n.of {
		c.walk(f)
	}
}

func (n *anyNode) walk(f func(node)) {
	f(n)
	for _, c := range n.of {
		c.walk(f)
	}
}
func (n *notNode) walk(f func(node))  { f(n); n.of.walk(f) }
func (n *exprNode) walk(f func(node)) { f(n) }
func (n *seenNode) walk(f func(node)) { f(n) }

func (n *allNode) eval(x *evaluation) Verdict {
	v := Match
	for _, c := range n.of {
		v = min(v, c.eval(x)) // all are evaluated: explain wants to know
	}
	return v
}

func (n *anyNode) eval(x *evaluation) Verdict {
	v := NoMatch
	for _, c := range n.of {
		v = max(v, c.eval(x))
	}
	return v
}

func (n *notNode) eval(x *evaluation) Verdict { return Match - n.of.eval(x) }

func (n *exprNode) eval(x *evaluation) Verdict {
	ok, err := n.e.truth(x.vars)
	var unknown *errUnknown
	switch {
	case errors.As(err, &unknown):
		x.missing(unknown.names)
		return Undetermined
	case err != nil:
		x.res.Errors = append(x.res.Errors, err.Error())
		return Undetermined
	case ok:
		return Match
	}
	return NoMatch
}

// condition reads one node of match.
func (d *decoder) condition(n *yaml.Node, bound map[string]bool) node {
	if n.Kind != yaml.MappingNode {
		d.addf(n, codeType, "a condition is a mapping with all, any, not, stack, php or expr")
		return &allNode{}
	}
	var out node
	set := func(at *yaml.Node, v node) {
		if out != nil {
			d.addf(at, codeValue, "a condition has one of all, any, not, expr, or stack and php")
		}
		out = v
	}
	many := func(n *yaml.Node, what string) []node {
		var of []node
		d.list(n, what, func(c *yaml.Node) { of = append(of, d.condition(c, bound)) })
		if len(of) == 0 && n.Kind == yaml.SequenceNode {
			d.addf(n, codeValue, "%s is empty", what)
		}
		return of
	}
	seen := &seenNode{in: "any"}
	var in *yaml.Node
	patterns := func(dst *[]alternative, php bool) func(*yaml.Node) {
		return func(n *yaml.Node) {
			if out != seen {
				set(n, seen)
			}
			*dst = d.alternatives(n, php, bound)
		}
	}
	d.mapping(n, "a condition", fields{
		"all":  func(n *yaml.Node) { set(n, &allNode{many(n, "all")}) },
		"any":  func(n *yaml.Node) { set(n, &anyNode{many(n, "any")}) },
		"not":  func(n *yaml.Node) { set(n, &notNode{d.condition(n, bound)}) },
		"expr": func(n *yaml.Node) { e := d.expr(n, "expr", cel.BoolType); set(n, &exprNode{e}) },
		"in": func(n *yaml.Node) {
			in = n
			seen.in = d.oneOf(n, "in", "stops", "samples", "any")
		},
		"share": func(n *yaml.Node) {
			in = n
			if seen.share = d.number(n, "share"); seen.share <= 0 || seen.share > 1 {
				d.addf(n, codeValue, "share lies above 0 and up to 1")
			}
		},
		"stack": patterns(&seen.native, false),
		"php":   patterns(&seen.php, true),
	})
	if out == nil {
		d.addf(n, codeMissing, "the condition is empty")
		return &allNode{}
	}
	if in != nil && out != seen {
		d.addf(in, codeValue, "in and share go with stack or php")
	}
	return out
}

// alternatives reads a pattern, or several with names.
func (d *decoder) alternatives(n *yaml.Node, php bool, bound map[string]bool) []alternative {
	one := func(name string, n *yaml.Node) alternative {
		text := d.text(n, "a pattern")
		p, bad := parsePattern(text, php)
		lines := make([]int, 0, len(bad))
		for i := range bad {
			lines = append(lines, i)
		}
		sort.Ints(lines)
		for _, i := range lines {
			line, col := n.Line, n.Column
			if n.Style&yaml.LiteralStyle != 0 {
				line, col = n.Line+1+i, 1
			}
			d.at(line, col, codePattern, "%v", bad[i])
		}
		for i := range p.elements {
			if as := p.elements[i].as; as != "" {
				bound[as] = true
			}
		}
		return alternative{name, compile(p)}
	}
	if n.Kind == yaml.ScalarNode {
		return []alternative{one("", n)}
	}
	if n.Kind != yaml.MappingNode {
		d.addf(n, codeType, "write a pattern, or several with names")
		return nil
	}
	var out []alternative
	d.pairs(n, func(k, v *yaml.Node) { out = append(out, one(k.Value, v)) })
	if len(out) == 0 {
		d.addf(n, codeMissing, "no pattern")
	}
	return out
}

// hit is how a condition fared on one distinct stack.
type hit struct {
	ok       bool
	unknowns int
	via      string
	captures map[string]int
}

// on matches one stack.
func (n *seenNode) on(s *Stack) hit {
	h := hit{ok: true, captures: map[string]int{}}
	try := func(alts []alternative, kind FrameKind) {
		if len(alts) == 0 || !h.ok {
			return
		}
		v := view(s.Frames, kind)
		var best match
		via, found := "", false
		for _, a := range alts {
			m, ok := a.prg.run(s.Frames, v)
			if ok && (!found || m.unknowns < best.unknowns) {
				best, via, found = m, a.name, true
			}
		}
		h.ok = found
		h.unknowns += best.unknowns
		if via != "" {
			h.via = via
		}
		for k, i := range best.captures {
			h.captures[k] = i
		}
	}
	try(n.native, Native)
	try(n.php, PHP)
	return h
}

func (n *seenNode) eval(x *evaluation) Verdict {
	var ok, of int
	hits := make(map[int]hit)
	matched := make(map[int]bool)
	for i := range x.o.Events {
		ev := &x.o.Events[i]
		if n.in == "stops" && ev.Kind != Stop || n.in == "samples" && ev.Kind != Sample {
			continue
		}
		of++
		h, seen := hits[ev.Stack]
		if !seen {
			h = n.on(&x.o.Stacks[ev.Stack])
			hits[ev.Stack] = h
		}
		if h.ok {
			ok++
			matched[i] = true
		}
	}
	if of == 0 {
		if n.in == "stops" && len(x.o.Watched) > 0 {
			return NoMatch // it was watched for and did not happen
		}
		what := n.in
		if what == "any" {
			what = "stacks"
		}
		x.missing([]string{what})
		return Undetermined
	}
	share := n.share
	enough := ok > 0
	if share > 0 {
		enough = float64(ok) >= share*float64(of)
	}
	x.conditions = append(x.conditions, condition{n, hits, matched, of})
	if enough && ok > 0 {
		return Match
	}
	return NoMatch
}

func describeMissing(n string) string {
	switch n {
	case "stops":
		return "stops (needs: attach with breakpoints; dump takes none)"
	case "samples":
		return "samples (needs: a longer observation)"
	case "stacks":
		return "stacks"
	}
	return missing(n)
}
