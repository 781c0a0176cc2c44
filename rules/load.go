package rules

import (
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"sort"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"gopkg.in/yaml.v3"
)

// Schema is the value of a rule file's key "schema".
const Schema = "phpwhy/rule/v1"

// Severity is how bad it is.
type Severity string

// The severities, mildest first.
const (
	Info     Severity = "info"
	Low      Severity = "low"
	Medium   Severity = "medium"
	High     Severity = "high"
	Critical Severity = "critical"
)

var severities = []string{string(Info), string(Low), string(Medium), string(High), string(Critical)}

// Kind tells causes of a hang from healthy states.
type Kind string

// The kinds of rules.
const (
	Cause  Kind = "cause"
	Benign Kind = "benign"
)

// Rule is one compiled rule.
type Rule struct {
	ID         string
	Revision   int
	Title      string
	Severity   Severity
	Maturity   string
	Kind       Kind
	Supersedes []string
	Explain    string
	Fix        string
	Refs       []string
	File       string
	Line       int

	applies    applies
	match      node
	bind       map[string]*expr
	score      score
	message    *template
	exceptions []exception
	chain      bool // some expression looks at chain
}

type score struct {
	base       float64
	plus       []bonus
	perUnknown float64
	reportAt   float64
}

type bonus struct {
	add float64
	if_ *expr
}

type exception struct {
	site, reason string
	until        time.Time
}

// Set are the rules that can be evaluated together.
type Set struct {
	rules []*Rule
	byID  map[string]*Rule
}

// Rules lists the rules by id.
func (s *Set) Rules() []*Rule { return s.rules }

// Rule finds a rule by id, or nil.
func (s *Set) Rule(id string) *Rule { return s.byID[id] }

// Load reads every *.yaml and *.yml file (except *.test.yaml) of the file
// systems. Rules with problems are left out of the Set.
func Load(dirs ...fs.FS) (*Set, []Problem) {
	s := &Set{byID: make(map[string]*Rule)}
	var problems []Problem
	for _, dir := range dirs {
		err := fs.WalkDir(dir, ".", func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				problems = append(problems, Problem{path, 1, 1, codeYAML, err.Error()})
				return nil
			}
			if e.IsDir() || !isRuleFile(path) {
				return nil
			}
			b, err := readFile(dir, path)
			if err != nil {
				problems = append(problems, Problem{path, 1, 1, codeYAML, err.Error()})
				return nil
			}
			r, ps := Parse(path, b)
			problems = append(problems, ps...)
			if len(ps) > 0 {
				return nil
			}
			if first := s.byID[r.ID]; first != nil {
				problems = append(problems, Problem{path, r.Line, 1, codeDuplicate,
					fmt.Sprintf("rule %s is already defined in %s", r.ID, first.File)})
				return nil
			}
			s.byID[r.ID] = r
			s.rules = append(s.rules, r)
			return nil
		})
		if err != nil {
			problems = append(problems, Problem{".", 1, 1, codeYAML, err.Error()})
		}
	}
	problems = append(problems, s.dropCycles()...)
	sort.Slice(s.rules, func(i, j int) bool { return s.rules[i].ID < s.rules[j].ID })
	sortProblems(problems)
	return s, problems
}

// readFile reads no more of a file than document needs to refuse it.
func readFile(dir fs.FS, path string) ([]byte, error) {
	f, err := dir.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile+1))
}

func isRuleFile(path string) bool {
	if strings.HasSuffix(path, ".test.yaml") || strings.HasSuffix(path, ".test.yml") {
		return false
	}
	return strings.HasSuffix(path, ".yaml") || strings.HasSuffix(path, ".yml")
}

// dropCycles leaves out rules that supersede each other in a circle.
func (s *Set) dropCycles() []Problem {
	var out []Problem
	var bad []*Rule
	for _, r := range s.rules {
		seen := make(map[string]bool)
		todo := append([]string(nil), r.Supersedes...)
		for len(todo) > 0 {
			id := todo[0]
			todo = todo[1:]
			if seen[id] {
				continue
			}
			seen[id] = true
			if o := s.byID[id]; o != nil {
				todo = append(todo, o.Supersedes...)
			}
		}
		if seen[r.ID] {
			bad = append(bad, r)
			out = append(out, Problem{r.File, r.Line, 1, codeCycle, fmt.Sprintf("%s supersedes itself in a circle", r.ID)})
		}
	}
	for _, r := range bad {
		delete(s.byID, r.ID)
		for i := range s.rules {
			if s.rules[i] == r {
				s.rules = append(s.rules[:i], s.rules[i+1:]...)
				break
			}
		}
	}
	return out
}

var (
	ruleID = regexp.MustCompile(`^[a-z][a-z0-9-]*(\.[a-z0-9][a-z0-9-]*)+$`)
	name   = regexp.MustCompile(`^[A-Za-z_][A-Za-z_0-9]*$`)
)

// Parse reads one rule file. The rule is nil when there are problems.
func Parse(file string, b []byte) (*Rule, []Problem) {
	d := &decoder{file: file}
	doc := d.document(b)
	if doc == nil {
		return nil, d.problems
	}
	r := &Rule{File: file, Line: doc.Line, Revision: 1, Kind: Cause, Maturity: "stable", bind: make(map[string]*expr)}
	r.score = score{base: 0.5, reportAt: 0.5}
	var message *yaml.Node
	bound := make(map[string]bool)
	d.mapping(doc, "a rule", fields{
		"schema": func(n *yaml.Node) {
			if v := d.text(n, "schema"); v != Schema && v != "" {
				d.addf(n, codeValue, "schema is %s, not %q", Schema, v)
			}
		},
		"id": func(n *yaml.Node) {
			r.Line = n.Line
			if r.ID = d.text(n, "id"); r.ID != "" && !ruleID.MatchString(r.ID) {
				d.addf(n, codeValue, "id is lower-case words joined by dots, such as mem.string-concat")
			}
		},
		"revision": func(n *yaml.Node) {
			if r.Revision = d.integer(n, "revision"); r.Revision < 1 {
				d.addf(n, codeValue, "revision counts from 1")
			}
		},
		"title":      func(n *yaml.Node) { r.Title = d.text(n, "title") },
		"severity":   func(n *yaml.Node) { r.Severity = Severity(d.oneOf(n, "severity", severities...)) },
		"maturity":   func(n *yaml.Node) { r.Maturity = d.oneOf(n, "maturity", "experimental", "stable", "deprecated") },
		"kind":       func(n *yaml.Node) { r.Kind = Kind(d.oneOf(n, "kind", string(Cause), string(Benign))) },
		"applies_to": func(n *yaml.Node) { r.applies = d.applies(n) },
		"supersedes": func(n *yaml.Node) { r.Supersedes = d.texts(n, "supersedes") },
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
	}, "schema", "id", "title", "severity", "match", "message")
	if message != nil {
		if text := d.text(message, "message"); text != "" {
			var err error
			if r.message, err = parseTemplate(text, bound); err != nil {
				d.addf(message, codeTemplate, "%v", err)
			}
		}
	}
	if len(d.problems) > 0 {
		sortProblems(d.problems)
		return nil, d.problems
	}
	r.chain = usesChain(r)
	return r, nil
}

func (d *decoder) bind(n *yaml.Node, r *Rule, bound map[string]bool) {
	if n.Kind != yaml.MappingNode {
		d.addf(n, codeType, "bind is a mapping")
		return
	}
	d.pairs(n, func(k, v *yaml.Node) {
		if !name.MatchString(k.Value) {
			d.addf(k, codeValue, "%q can't be a name", k.Value)
		}
		if e := d.expr(v, "bind", nil); e != nil {
			r.bind[k.Value] = e
			bound[k.Value] = true
		}
	})
}

// expr compiles an expression and places its problem.
func (d *decoder) expr(n *yaml.Node, what string, want *cel.Type) *expr {
	text := d.text(n, what)
	if text == "" {
		return nil
	}
	e, err := compileExpr(text, want)
	if err == nil {
		return e
	}
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
	return nil
}

func (d *decoder) score(n *yaml.Node, s *score) {
	part := func(dst *float64, what string, lo, hi float64) func(*yaml.Node) {
		return func(n *yaml.Node) {
			if *dst = d.number(n, what); *dst < lo || *dst > hi {
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
	var e exception
	d.mapping(n, "an exception", fields{
		"site":   func(n *yaml.Node) { e.site = d.text(n, "site") },
		"reason": func(n *yaml.Node) { e.reason = d.text(n, "reason") },
		"until": func(n *yaml.Node) {
			// An unquoted date is the one scalar that YAML reads as it is meant.
			t, err := time.Parse(time.DateOnly, n.Value)
			if n.Kind != yaml.ScalarNode || err != nil {
				d.addf(n, codeType, "until is a date such as 2027-01-31")
			}
			e.until = t.AddDate(0, 0, 1)
		},
	}, "site", "until", "reason")
	return e
}

func usesChain(r *Rule) bool {
	found := false
	look := func(e *expr) {
		for _, u := range e.uses {
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
