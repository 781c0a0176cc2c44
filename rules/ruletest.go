package rules

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
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
	Col      int
	// RuleLine and RuleCol are where the file names the rule; 0 when it does not.
	RuleLine, RuleCol int
	// Broken is set for a case that has a problem: it is not run.
	Broken bool
}

// Outcome is a case that was run, or a finding that no case expects.
type Outcome struct {
	Case
	Err     error // nil: as expected
	Verdict Verdict
	Via     string  // the alternative by which it matched
	Reached float64 // its score, of a match
	// Unexpected is set for a finding that no case is about.
	Unexpected bool
}

// LoadTests reads every *.test.yaml of a file system. A file with problems has its
// good cases, and at least one that is Broken, so that its rule is not taken for
// untested.
func LoadTests(dir fs.FS) ([]Case, []Problem) { return LoadTestSources(Source{FS: dir}) }

// LoadTestSources reads every *.test.yaml of several sources. A case's Capture
// is then a path that begins with its source's name.
func LoadTestSources(sources ...Source) ([]Case, []Problem) {
	var cases []Case
	l := loader{}
	for _, src := range sources {
		files := 0
		err := walk(src.FS, func(p string, e fs.DirEntry, err error) error {
			file := path.Join(src.Name, p)
			if err != nil {
				l.fail(file, mark{}, codeYAML, "%v", err)
				return nil
			}
			if e.IsDir() || !isTestFile(p) {
				return nil
			}
			if files++; files > maxFiles {
				l.fail(file, mark{}, codeYAML, "more than %d test files; the rest is left out", maxFiles)
				return fs.SkipAll
			}
			b, err := readFile(src.FS, p)
			if err != nil {
				l.fail(file, mark{}, codeYAML, "%v", err)
				return nil
			}
			cs, ps := parseTest(file, b)
			cases, l.problems = append(cases, cs...), append(l.problems, ps...)
			return nil
		})
		if err != nil {
			l.fail(path.Join(src.Name, "."), mark{}, codeYAML, "%v", err)
		}
	}
	sortProblems(l.problems)
	return cases, l.problems
}

func parseTest(file string, b []byte) ([]Case, []Problem) {
	return (&decoder{}).tests(file, b)
}

func (d *decoder) tests(file string, b []byte) ([]Case, []Problem) {
	d.file = file
	// Until the file says which rule it is about, its name does.
	rule := strings.TrimSuffix(strings.TrimSuffix(path.Base(file), path.Ext(file)), ".test")
	doc := d.document(b)
	if doc == nil {
		return []Case{{Rule: rule, File: file, Line: 1, Col: 1, Broken: true}}, d.problems
	}
	var cases []Case
	var at mark
	d.mapping(doc, "a test", fields{
		"rule": func(n *yaml.Node) {
			if name := d.filled(n, "rule"); !blank(name) {
				rule, at = name, mark{n.Line, n.Column}
			}
		},
		"cases": func(n *yaml.Node) {
			d.list(n, "cases", func(n *yaml.Node) { cases = append(cases, d.testCase(n, file)) })
		},
	}, "rule", "cases")
	if len(d.problems) > 0 && !slices.ContainsFunc(cases, func(c Case) bool { return c.Broken }) {
		cases = append(cases, Case{File: file, Line: 1, Col: 1, Broken: true})
	}
	for i := range cases {
		cases[i].Broken = cases[i].Broken || at.line == 0
		cases[i].Rule, cases[i].RuleLine, cases[i].RuleCol = rule, at.line, at.col
	}
	return cases, d.problems
}

func (d *decoder) testCase(n *yaml.Node, file string) Case {
	c := Case{File: file, Line: n.Line, Col: n.Column}
	before := len(d.problems)
	d.mapping(n, "a case", fields{
		"capture": func(n *yaml.Node) {
			if c.Capture = d.filled(n, "capture"); !path.IsAbs(c.Capture) {
				c.Capture = path.Join(path.Dir(file), c.Capture)
			}
		},
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
			if !d.is(n, yaml.MappingNode, "captures is a mapping") {
				return
			}
			d.pairs(n, func(k, v *yaml.Node) { c.Captures[k.Value] = d.filled(v, "a capture") })
		},
		"score": func(n *yaml.Node) {
			c.Score = d.filled(n, "score")
			if _, _, err := parseBound(c.Score); err != nil && c.Score != "" {
				d.addf(n, codeValue, "%v", err)
			}
		},
	}, "capture", "expect")
	c.Broken = len(d.problems) > before || d.refused[n]
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

// ErrUntested is the failure of a rule that no case is about.
var ErrUntested = errors.New("no test is about this rule: an untested rule is not a pass")

// TestOptions say what Test runs.
type TestOptions struct {
	// Open reads a capture by its path.
	Open func(path string) (*Observation, error)
	// Only tells the rules under test, nil for all. The others are there to
	// be superseded; what they find on a capture is nobody's failure.
	Only func(*Rule) bool
	// Also is told of their findings; it may be nil.
	Also func(capture string, f Finding)
}

// RunTests runs the cases, with all rules under test, and fails no rule for
// having no case.
func (s *Set) RunTests(cases []Case, open func(path string) (*Observation, error)) []Outcome {
	return s.runCases(cases, TestOptions{Open: open})
}

// Test runs the cases. Every rule under test also runs over every capture: one
// that reports a finding where none of its own cases expects a match fails,
// unless it is superseded. So does one without any case.
func (s *Set) Test(cases []Case, opt TestOptions) []Outcome {
	out := s.runCases(cases, opt)
	tested := make(map[string]bool)
	for i := range cases {
		tested[cases[i].Rule] = true
	}
	for _, r := range s.rules {
		if !tested[r.ID] && (opt.Only == nil || opt.Only(r)) {
			out = append(out, Outcome{Case: Case{Rule: r.ID, File: r.File, Line: r.at["id"].line, Col: r.at["id"].col}, Err: ErrUntested})
		}
	}
	return out
}

func (s *Set) runCases(cases []Case, opt TestOptions) []Outcome {
	var out []Outcome
	reports := make(map[string]Report)
	judged := make(map[string]map[string]bool)
	var paths []string
	for _, c := range cases {
		if c.Broken {
			continue
		}
		o := Outcome{Case: c}
		rep, ok := reports[c.Capture]
		if !ok {
			obs, err := opt.Open(c.Capture)
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
			judged[c.Capture] = make(map[string]bool)
		}
		// Whatever the case expects: it says so when that is not what comes.
		judged[c.Capture][c.Rule] = true
		s.check(&o, rep)
		out = append(out, o)
	}
	sort.Strings(paths)
	for _, p := range paths {
		rep := reports[p]
		for _, f := range rep.Findings {
			r := s.Rule(f.Rule)
			if judged[p][f.Rule] {
				continue
			}
			if opt.Only != nil && !opt.Only(r) {
				if opt.Also != nil {
					opt.Also(p, f)
				}
				continue
			}
			via := rep.of(r).Via
			o := Outcome{Case: Case{Rule: f.Rule, Capture: p, File: r.File, Line: r.at["match"].line, Col: r.at["match"].col},
				Verdict: Match, Via: via, Reached: f.Confidence, Unexpected: true}
			o.Err = fmt.Errorf("UNEXPECTED match%s, score %.2f: %s", viaText(via), f.Confidence, f.Message)
			out = append(out, o)
		}
	}
	return out
}

func viaText(via string) string {
	if via == "" {
		return ""
	}
	return " via " + via
}

// of is what one rule said, nil when it was not asked.
func (rep *Report) of(r *Rule) *Result {
	for i := range rep.Results {
		if rep.Results[i].Rule == r {
			return &rep.Results[i]
		}
	}
	return nil
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
func (s *Set) check(o *Outcome, rep Report) {
	r, err := s.Find(o.Rule)
	if err != nil {
		o.Err = err
		return
	}
	res := rep.of(r)
	o.Verdict, o.Via = res.Verdict, res.Via
	if res.Finding != nil {
		o.Reached = res.Finding.Confidence
	}
	o.Err = o.Case.compare(res)
}

func (c *Case) compare(res *Result) error {
	if res.Verdict != c.Expect {
		unexpected := ""
		if res.Verdict == Match {
			unexpected = fmt.Sprintf("UNEXPECTED match%s, score %.2f; ", viaText(res.Via), res.Finding.Confidence)
		}
		return fmt.Errorf("%s%s, expected %s%s", unexpected, res.Verdict, c.Expect, res.why())
	}
	if c.Expect != Match {
		return nil
	}
	f := res.Finding
	if f.Confidence < res.Rule.score.reportAt {
		return fmt.Errorf("it matches, but %s", res.Hidden)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Captures)) {
		got, ok := f.Captures[name]
		if !ok {
			return fmt.Errorf("nothing was captured as %s", name)
		}
		if want := c.Captures[name]; !glob(want, got.text()) {
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
