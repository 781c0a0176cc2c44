package rules

import (
	"fmt"
	"io/fs"
	"path"
	"sort"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Case is one case of a rule's test file.
type Case struct {
	Rule     string
	Capture  string // path in the test file's file system
	Expect   Verdict
	Captures map[string]string // capture name to a glob over file:line
	Score    string            // such as ">=0.8", "" for any
	File     string
	Line     int
}

// Outcome is a case that was run.
type Outcome struct {
	Case
	Err error // nil: as expected
}

// LoadTests reads every *.test.yaml of a file system.
func LoadTests(dir fs.FS) ([]Case, []Problem) {
	var cases []Case
	var problems []Problem
	err := fs.WalkDir(dir, ".", func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(p, ".test.yaml") {
			return err
		}
		b, err := readFile(dir, p)
		if err != nil {
			return err
		}
		cs, ps := parseTest(p, b)
		cases, problems = append(cases, cs...), append(problems, ps...)
		return nil
	})
	if err != nil {
		problems = append(problems, Problem{".", 1, 1, codeYAML, err.Error()})
	}
	sortProblems(problems)
	return cases, problems
}

func parseTest(file string, b []byte) ([]Case, []Problem) {
	d := &decoder{file: file}
	doc := d.document(b)
	if doc == nil {
		return nil, d.problems
	}
	var cases []Case
	rule := ""
	d.mapping(doc, "a test", fields{
		"rule": func(n *yaml.Node) { rule = d.text(n, "rule") },
		"cases": func(n *yaml.Node) {
			d.list(n, "cases", func(n *yaml.Node) { cases = append(cases, d.testCase(n, file)) })
		},
	}, "rule", "cases")
	for i := range cases {
		cases[i].Rule = rule
	}
	if len(d.problems) > 0 {
		return nil, d.problems
	}
	return cases, nil
}

func (d *decoder) testCase(n *yaml.Node, file string) Case {
	c := Case{File: file, Line: n.Line}
	d.mapping(n, "a case", fields{
		"capture": func(n *yaml.Node) { c.Capture = path.Join(path.Dir(file), d.text(n, "capture")) },
		"expect": func(n *yaml.Node) {
			switch d.oneOf(n, "expect", "match", "no_match", "undetermined") {
			case "match":
				c.Expect = Match
			case "undetermined":
				c.Expect = Undetermined
			}
		},
		"captures": func(n *yaml.Node) {
			c.Captures = make(map[string]string)
			if n.Kind != yaml.MappingNode {
				d.addf(n, codeType, "captures is a mapping")
				return
			}
			d.pairs(n, func(k, v *yaml.Node) { c.Captures[k.Value] = d.text(v, "a capture") })
		},
		"score": func(n *yaml.Node) {
			c.Score = d.text(n, "score")
			if _, _, err := parseBound(c.Score); err != nil && c.Score != "" {
				d.addf(n, codeValue, "%v", err)
			}
		},
	}, "capture", "expect")
	return c
}

// parseBound reads ">=0.8" or "<=0.5".
func parseBound(s string) (op string, v float64, err error) {
	op = s[:min(2, len(s))]
	if op != ">=" && op != "<=" {
		return "", 0, fmt.Errorf("score is a bound such as \">=0.8\", not %q", s)
	}
	v, err = strconv.ParseFloat(s[2:], 64)
	if err != nil {
		return "", 0, fmt.Errorf("score is a bound such as \">=0.8\", not %q", s)
	}
	return op, v, nil
}

// RunTests runs the cases. open reads a capture by its path. Every rule of the
// set also runs over every capture: one that reports a finding where none of
// its own cases expects a match fails, unless it is superseded.
func (s *Set) RunTests(cases []Case, open func(path string) (*Observation, error)) []Outcome {
	var out []Outcome
	reports := make(map[string]Report)
	expected := make(map[string]map[string]bool)
	var paths []string
	for _, c := range cases {
		o := Outcome{Case: c}
		rep, ok := reports[c.Capture]
		if !ok {
			obs, err := open(c.Capture)
			if err == nil {
				rep, err = s.Evaluate(obs, Options{Now: time.Time{}})
			}
			if err != nil {
				o.Err = err
				out = append(out, o)
				continue
			}
			reports[c.Capture] = rep
			paths = append(paths, c.Capture)
			expected[c.Capture] = make(map[string]bool)
		}
		if c.Expect == Match {
			expected[c.Capture][c.Rule] = true
		}
		o.Err = s.check(&c, rep)
		out = append(out, o)
	}
	sort.Strings(paths)
	for _, p := range paths {
		for _, f := range reports[p].Findings {
			if !expected[p][f.Rule] {
				out = append(out, Outcome{Case{Rule: f.Rule, Capture: p},
					fmt.Errorf("UNEXPECTED match, score %.2f: %s", f.Confidence, f.Message)})
			}
		}
	}
	return out
}

// why says what kept a rule from another verdict, as far as it is known.
func (r *Result) why() string {
	switch {
	case r.Skipped != "":
		return ": " + r.Skipped
	case len(r.Missing) > 0:
		return ": it lacks " + strings.Join(r.Missing, "; ")
	case len(r.Errors) > 0:
		return ": " + strings.Join(r.Errors, "; ")
	}
	return ""
}

// check compares a report with what a case expects.
func (s *Set) check(c *Case, rep Report) error {
	if s.Rule(c.Rule) == nil {
		return fmt.Errorf("no rule is called %s", c.Rule)
	}
	var res *Result
	for i := range rep.Results {
		if rep.Results[i].Rule.ID == c.Rule {
			res = &rep.Results[i]
		}
	}
	if res.Verdict != c.Expect {
		return fmt.Errorf("%s, expected %s%s", res.Verdict, c.Expect, res.why())
	}
	if c.Expect != Match {
		return nil
	}
	f := res.Finding
	if f.Confidence < res.Rule.score.reportAt {
		return fmt.Errorf("it matches, but %s", res.Hidden)
	}
	for name, want := range c.Captures {
		got, ok := f.Captures[name]
		if !ok {
			return fmt.Errorf("nothing was captured as %s", name)
		}
		if !glob(want, got.text()) {
			return fmt.Errorf("%s is %q, expected %q", name, got.text(), want)
		}
	}
	if c.Score != "" {
		op, v, err := parseBound(c.Score)
		if err != nil {
			return err
		}
		if op == ">=" && f.Confidence < v || op == "<=" && f.Confidence > v {
			return fmt.Errorf("score is %.2f, expected %s", f.Confidence, c.Score)
		}
	}
	return nil
}
