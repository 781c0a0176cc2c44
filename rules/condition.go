package rules

import (
	"maps"
	"slices"

	"cel.dev/cel-go/cel"
	"gopkg.in/yaml.v3"
)

// What in selects, which is also how the events are called when there are none.
const (
	inStops   = "stops"
	inSamples = "samples"
	inAny     = "any"
	// onSymbol begins what a pattern lacks whose leaf had no breakpoint.
	onSymbol = "stops on "
	// wholeStacks is what a pattern lacks that wants the root.
	wholeStacks = "whole stacks"
	// phpFrames is what a PHP pattern lacks on a stack without any.
	phpFrames = "PHP frames"
)

// node is a condition: all, any, not, stack and php patterns, or an expression.
type node interface {
	eval(x *evaluation) outcome
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
		name string // "" when it is the only one
		prg  *program
		at   mark // of its first line
		// group is the number of its condition in the rule.
		group int
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

// condition reads one node of match, and adds to bound what its lines capture.
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
	seen := &seenNode{in: inAny}
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
		"all": func(n *yaml.Node) { set(n, &allNode{many(n, "all")}) },
		"any": func(n *yaml.Node) { set(n, &anyNode{many(n, "any")}) },
		// What is absent captures nothing, so its names are not bound.
		"not":  func(n *yaml.Node) { set(n, &notNode{d.condition(n, map[string]bool{})}) },
		"expr": func(n *yaml.Node) { e := d.expr(n, "expr", cel.BoolType); set(n, &exprNode{e}) },
		"in": func(n *yaml.Node) {
			in = n
			seen.in = d.oneOf(n, "in", inStops, inSamples, inAny)
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
		for _, i := range slices.Sorted(maps.Keys(bad)) {
			at := d.lineOf(n, i)
			d.at(at.line, at.col, codePattern, "%v", bad[i])
		}
		for i := range p.elements {
			e := &p.elements[i]
			e.at = d.lineOf(n, e.no-1)
			if e.as != "" {
				bound[e.as] = true
			}
		}
		return alternative{name: name, prg: compile(p), at: d.lineOf(n, 0)}
	}
	if n.Kind == yaml.ScalarNode {
		return []alternative{one("", n)}
	}
	if n.Kind != yaml.MappingNode {
		d.addf(n, codeType, "write a pattern, or several with names")
		return nil
	}
	var out []alternative
	d.pairs(n, func(k, v *yaml.Node) {
		if !name.MatchString(k.Value) {
			d.addf(k, codeValue, "%q can't be a name", k.Value)
		}
		out = append(out, one(k.Value, v))
	})
	if len(out) == 0 {
		d.addf(n, codeMissing, "no pattern")
	}
	return out
}

// lineOf finds line i (from 0) of a text in the file.
func (d *decoder) lineOf(n *yaml.Node, i int) mark {
	switch {
	case n.Style&yaml.LiteralStyle != 0:
		line := n.Line + 1 + i
		return mark{line, d.indent(line) + 1}
	case n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0:
		return mark{n.Line, n.Column + 1}
	}
	return mark{n.Line, n.Column}
}
