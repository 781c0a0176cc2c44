package rules

import (
	"fmt"
	"maps"
	"slices"
	"strings"

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
		// broken is set when not all of its lines could be read; it is only linted.
		broken bool
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
func (d *decoder) condition(n *yaml.Node, bound bindings) node {
	if !d.is(n, yaml.MappingNode, "a condition is a mapping with all, any, not, stack, php or expr") {
		d.blind = true
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
		"not":  func(n *yaml.Node) { set(n, &notNode{d.condition(n, make(bindings))}) },
		"expr": func(n *yaml.Node) { e := d.expr(n, "expr", cel.BoolType); set(n, &exprNode{e}) },
		"in": func(n *yaml.Node) {
			in = n
			seen.in = d.oneOf(n, "in", inStops, inSamples, inAny)
		},
		"share": func(n *yaml.Node) {
			in = n
			v, ok := d.number(n, "share")
			if seen.share = v; ok && (v <= 0 || v > 1) {
				d.addf(n, codeValue, "share lies above 0 and up to 1%s", asShare(v))
			}
		},
		"stack": patterns(&seen.native, false),
		"php":   patterns(&seen.php, true),
	})
	if out == nil {
		if in != nil || len(n.Content) == 0 {
			d.addf(n, codeMissing, "the condition is empty")
		}
		return &allNode{} // else its keys have been refused
	}
	if in != nil && out != seen {
		d.addf(in, codeValue, "in and share go with stack or php")
	}
	return out
}

// alternatives reads a pattern, or several with names.
func (d *decoder) alternatives(n *yaml.Node, php bool, bound bindings) []alternative {
	one := func(name string, n *yaml.Node) alternative {
		before := len(d.problems)
		text := d.text(n, "a pattern")
		if d.refused[n] || len(d.problems) > before && blank(text) {
			d.blind = true
			return alternative{name: name, broken: true}
		}
		p, bad := parsePattern(text, php)
		for _, i := range slices.Sorted(maps.Keys(bad)) {
			at := d.lineOf(n, i)
			d.at(at.line, at.col, codePattern, "%v%s", bad[i], d.folded(n))
			for _, as := range captures().FindAllStringSubmatch(lineAt(text, i), -1) {
				bound[as[1]] = cel.StringType
			}
		}
		for i := range p.elements {
			e := &p.elements[i]
			e.at = d.lineOf(n, e.no-1)
			if e.as != "" {
				bound[e.as] = cel.StringType
			}
		}
		return alternative{name: name, prg: compile(p), at: d.lineOf(n, 0), broken: len(bad) > 0}
	}
	if n.Kind == yaml.ScalarNode {
		return []alternative{one("", n)}
	}
	want := "write a pattern, or several with names"
	if n.Kind == yaml.SequenceNode {
		want = "write a pattern, or several with names: its lines stand below a |, and not in a list"
	}
	if !d.is(n, yaml.MappingNode, "%s", want) {
		d.blind = true
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

// asShare says how to write a percentage.
func asShare(v float64) string {
	if v > 1 && v <= 100 {
		return fmt.Sprintf("; for %g %% write %g", v, v/100)
	}
	return ""
}

// folded is what to do about a pattern whose lines YAML has made one of.
func (d *decoder) folded(n *yaml.Node) string {
	const remedy = "; write | before the lines, or YAML makes one of them"
	switch {
	case n.Style&yaml.FoldedStyle != 0:
		return remedy
	case n.Style != 0 || n.Line < 1 || n.Line > len(d.lines):
		return ""
	}
	// A plain text that is longer than what stands on its first line goes on below.
	if first := d.lines[n.Line-1]; !strings.Contains(first, n.Value) && strings.HasPrefix(n.Value, strings.TrimSpace(first[min(n.Column-1, len(first)):])) {
		return remedy
	}
	return ""
}

// captures finds what a frame line captures, even when the line is bad.
var captures = lazily(`\bas=([A-Za-z_][A-Za-z_0-9]*)`)

func lineAt(text string, i int) string {
	if lines := strings.Split(text, "\n"); i < len(lines) {
		return lines[i]
	}
	return ""
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
