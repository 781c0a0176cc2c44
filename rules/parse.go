package rules

import (
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"gopkg.in/yaml.v3"
)

var (
	ruleID = regexp.MustCompile(`^[a-z][a-z0-9-]*(\.[a-z0-9][a-z0-9-]*)+$`)
	name   = regexp.MustCompile(`^[A-Za-z_][A-Za-z_0-9]*$`)
)

// Parse reads one rule file. The rule is nil when there are problems.
func Parse(file string, b []byte) (*Rule, []Problem) {
	r, ps := parse(&decoder{file: file}, b)
	if len(ps) > 0 {
		return nil, ps
	}
	return r, nil
}

// parse also gives what could be read of a rule that has problems, to be linted. Of
// a file that is no YAML that is its name.
func parse(d *decoder, b []byte) (*Rule, []Problem) {
	r := &Rule{File: d.file, Revision: 1, Kind: Cause, Maturity: "stable", bind: make(map[string]*expr),
		text: string(b), at: make(map[string]mark)}
	doc := d.document(b)
	if doc == nil {
		r.guessID()
		return r, d.problems
	}
	r.Line = doc.Line
	for i := 0; i+1 < len(doc.Content); i += 2 {
		r.at[doc.Content[i].Value] = mark{doc.Content[i+1].Line, doc.Content[i+1].Column}
	}
	r.score = score{base: 0.5, reportAt: 0.5}
	bound := make(bindings)
	message := d.rule(doc, r, bound)
	if message != nil {
		if text := d.filled(message, "message"); text != "" {
			if d.blind {
				bound = nil
			}
			var bad []error
			r.message, bad = parseTemplate(text, bound)
			for _, err := range bad {
				d.addf(message, codeTemplate, "%v", err)
			}
		}
	}
	if r.match != nil {
		r.collectAlternatives()
	}
	if !ruleID.MatchString(r.ID) {
		r.guessID()
	}
	sortProblems(d.problems)
	return r, d.problems
}

// bindings are what a rule binds, with the types of the values; nil for any type.
// Where they are nil themselves, they are not known.
type bindings map[string]*cel.Type

// guessID takes the id from the file's name, which is what a test beside it means.
func (r *Rule) guessID() {
	base := path.Base(r.File)
	r.ID, r.guessed = strings.TrimSuffix(base, path.Ext(base)), true
}

// rule reads the keys of a rule, all but message, which needs the others.
func (d *decoder) rule(doc *yaml.Node, r *Rule, bound bindings) (message *yaml.Node) {
	keys := fields{
		"schema": func(n *yaml.Node) {
			if v := d.filled(n, "schema"); v != Schema && v != "" {
				d.addf(n, codeValue, "schema is %s, not %q", Schema, v)
			}
		},
		"id": func(n *yaml.Node) {
			r.Line = n.Line
			if r.ID = d.filled(n, "id"); r.ID != "" && !ruleID.MatchString(r.ID) {
				d.addf(n, codeValue, "id is lower-case words joined by dots, such as mem.string-concat")
			}
		},
		"revision": func(n *yaml.Node) {
			v, ok := d.integer(n, "revision")
			if r.Revision = v; ok && v < 1 {
				d.addf(n, codeValue, "revision counts from 1")
			}
		},
		"title":      func(n *yaml.Node) { r.Title = d.filled(n, "title") },
		"severity":   func(n *yaml.Node) { r.Severity = Severity(d.oneOf(n, "severity", severities...)) },
		"maturity":   func(n *yaml.Node) { r.Maturity = d.oneOf(n, "maturity", "experimental", "stable", "deprecated") },
		"kind":       func(n *yaml.Node) { r.Kind = Kind(d.oneOf(n, "kind", string(Cause), string(Benign))) },
		"applies_to": func(n *yaml.Node) { r.applies = d.applies(n) },
		"supersedes": func(n *yaml.Node) { r.Supersedes = d.texts(n, "supersedes") },
		"overrides":  func(n *yaml.Node) { r.Overrides = d.overrides(n) },
		"labels":     func(n *yaml.Node) { r.Labels = d.labels(n) },
		"match":      func(n *yaml.Node) { r.match = d.condition(n, bound) },
		"bind":       func(n *yaml.Node) { d.bind(n, r, bound) },
		"score":      func(n *yaml.Node) { d.score(n, &r.score) },
		"message":    func(n *yaml.Node) { message = n },
		"explain":    func(n *yaml.Node) { r.Explain = d.text(n, "explain") },
		"fix":        func(n *yaml.Node) { r.Fix = d.text(n, "fix") },
		"refs":       func(n *yaml.Node) { r.Refs = d.texts(n, "refs") },
		"exceptions": func(n *yaml.Node) {
			d.list(n, "exceptions", func(c *yaml.Node) { r.exceptions = append(r.exceptions, d.exception(c)) })
		},
	}
	r.bad = make(map[string]bool)
	for k, read := range keys {
		keys[k] = func(n *yaml.Node) {
			before := len(d.problems)
			read(n)
			r.bad[k] = d.refused[n] || len(d.problems) > before
		}
	}
	d.mapping(doc, "a rule", keys, "schema", "id", "title", "severity", "match", "message")
	d.blind = d.blind || r.match == nil
	if o := r.Overrides; o != nil && r.ID != "" && o.ID != r.ID {
		at := r.at["overrides"]
		d.at(at.line, at.col, codeOverride, "a rule overrides the one of its own id, %s; to hide the finding of another, use supersedes", r.ID)
	}
	return message
}

// overrides reads id@revision.
func (d *decoder) overrides(n *yaml.Node) *Version {
	text := d.filled(n, "overrides")
	if text == "" {
		return nil
	}
	id, num, ok := strings.Cut(text, "@")
	rev, err := strconv.Atoi(num)
	if !ok || err != nil || rev < 1 || !ruleID.MatchString(id) {
		d.addf(n, codeValue, "overrides is id@revision, such as mem.string-concat@3")
		return nil
	}
	return &Version{id, rev}
}

// maxLabels bounds the labels of one rule.
const maxLabels = 64

func (d *decoder) labels(n *yaml.Node) map[string]string {
	out := make(map[string]string)
	if !d.is(n, yaml.MappingNode, "labels is a mapping") {
		return nil
	}
	d.pairs(n, func(k, v *yaml.Node) {
		if !name.MatchString(k.Value) {
			d.addf(k, codeValue, "%q can't be a name", k.Value)
		}
		out[k.Value] = d.text(v, "a label")
	})
	if len(out) > maxLabels {
		d.addf(n, codeValue, "more than %d labels", maxLabels)
	}
	return out
}

// collectAlternatives lists the rule's patterns in the order of its file.
func (r *Rule) collectAlternatives() {
	group := 0
	r.match.walk(func(n node) {
		s, ok := n.(*seenNode)
		if !ok {
			return
		}
		for _, alts := range [][]alternative{s.native, s.php} {
			for i := range alts {
				alts[i].group = group
				r.alts = append(r.alts, &alts[i])
			}
		}
		group++
	})
}

func (d *decoder) bind(n *yaml.Node, r *Rule, bound bindings) {
	if !d.is(n, yaml.MappingNode, "bind is a mapping") {
		d.blind = true
		return
	}
	d.pairs(n, func(k, v *yaml.Node) {
		if !name.MatchString(k.Value) {
			d.addf(k, codeValue, "%q can't be a name", k.Value)
		}
		// A bad expression binds its name, too: one problem is enough.
		bound[k.Value] = nil
		if e := d.expr(v, "bind", nil); e != nil {
			r.bind[k.Value] = e
			bound[k.Value] = e.gives
		}
	})
}

// expr reads an expression, compiles it, and places its problems.
func (d *decoder) expr(n *yaml.Node, what string, want *cel.Type) *expr {
	text := d.filled(n, what)
	if blank(text) {
		return nil
	}
	e := &expr{text: text, want: want, checked: d.prepared.checked(text)}
	if d.trusted {
		return e
	}
	bad := e.compile()
	if bad == nil {
		return e
	}
	for _, err := range bad {
		line, col := n.Line, n.Column
		switch {
		case n.Style&yaml.LiteralStyle != 0:
			line = n.Line + 1 + err.line
			col = d.indent(line) + 1 + err.col
		case n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0:
			// Escapes would shift this; expressions seldom have any.
			col += 1 + err.col
		case n.Style&yaml.FoldedStyle == 0:
			col += err.col
		}
		d.at(min(line, len(d.lines)), col, codeExpr, "%s", err.msg)
	}
	return nil
}

func (d *decoder) score(n *yaml.Node, s *score) {
	part := func(dst *float64, what string, lo, hi float64) func(*yaml.Node) {
		return func(n *yaml.Node) {
			v, ok := d.number(n, what)
			if *dst = v; ok && (v < lo || v > hi) {
				d.addf(n, codeValue, "%s lies between %g and %g", what, lo, hi)
			}
		}
	}
	d.mapping(n, "score", fields{
		"base":        part(&s.base, "base", 0, 1),
		"per_unknown": part(&s.perUnknown, "per_unknown", -1, 0),
		"report_at":   part(&s.reportAt, "report_at", 0, 1),
		"plus": func(n *yaml.Node) {
			d.list(n, "plus", func(c *yaml.Node) {
				var b bonus
				d.mapping(c, "plus", fields{
					"add": part(&b.add, "add", -1, 1),
					"if":  func(n *yaml.Node) { b.if_ = d.expr(n, "if", cel.BoolType) },
				}, "add", "if")
				s.plus = append(s.plus, b)
			})
		},
	}, "base")
}

func (d *decoder) exception(n *yaml.Node) exception {
	e := exception{mark: mark{n.Line, n.Column}}
	d.mapping(n, "an exception", fields{
		"site":   func(n *yaml.Node) { e.site = d.filled(n, "site") },
		"reason": func(n *yaml.Node) { e.reason = d.filled(n, "reason") },
		"until": func(n *yaml.Node) {
			// An unquoted date is the one scalar that YAML reads as it is meant.
			const want = "until is a date such as 2030-12-31"
			if !d.is(n, yaml.ScalarNode, want) {
				return
			}
			t, err := time.Parse(time.DateOnly, n.Value)
			if err != nil {
				d.addf(n, codeType, want)
				return
			}
			e.until = t.AddDate(0, 0, 1)
		},
	}, "site", "until", "reason")
	return e
}

// usesChain reports whether an expression looks at the chain of growing blocks.
func (r *Rule) usesChain() bool {
	found := false
	look := func(e *expr) {
		for _, u := range e.evidence() {
			found = found || strings.HasPrefix(u, "chain.")
		}
	}
	r.match.walk(func(n node) {
		if c, ok := n.(*exprNode); ok {
			look(c.e)
		}
	})
	for _, e := range r.bind {
		look(e)
	}
	return found
}
