package cli

import (
	"encoding/xml"
	"io"
)

// testResult is the JSON form of "rules test" (phpwhy/rules-test/v1).
type testResult struct {
	Schema   string        `json:"schema"`
	OK       int           `json:"ok"`
	Failures int           `json:"failures"`
	Cases    []testCase    `json:"cases"`
	Problems []lintProblem `json:"problems"` // of files that don't load
	Notes    []string      `json:"notes"`
}

type testCase struct {
	Rule    string  `json:"rule"`
	Capture string  `json:"capture"`
	Expect  string  `json:"expect"` // "" for a match that no case is about, and for a rule without a case
	Verdict string  `json:"verdict"`
	Via     string  `json:"via"`
	Score   float64 `json:"score"`
	OK      bool    `json:"ok"`
	Error   string  `json:"error"`
	File    string  `json:"file"`
	Line    int     `json:"line"`
}

func (t *tested) json(w io.Writer) error {
	n := t.failures()
	r := testResult{Schema: "phpwhy/rules-test/v1", OK: len(t.outcomes) + len(t.problems) - n, Failures: n,
		Cases: []testCase{}, Problems: []lintProblem{}, Notes: append([]string{}, t.noted...)}
	for i := range t.outcomes {
		o := &t.outcomes[i]
		c := testCase{Rule: o.Rule, Capture: o.Capture, Verdict: o.Verdict.String(), Via: o.Via, Score: o.Reached,
			OK: o.Err == nil, File: o.File, Line: o.Line}
		if !o.Unexpected && o.Capture != "" {
			c.Expect = o.Expect.String()
		}
		if o.Err != nil {
			c.Error = o.Err.Error()
		}
		r.Cases = append(r.Cases, c)
	}
	for _, p := range t.problems {
		r.Problems = append(r.Problems, lintProblem{p.File, p.Line, p.Col, p.Code, level(p), p.Msg})
	}
	return writeJSON(w, r)
}

// The part of JUnit's XML that build servers read.
type junitSuite struct {
	XMLName  xml.Name    `xml:"testsuite"`
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Class   string        `xml:"classname,attr"`
	Name    string        `xml:"name,attr"`
	File    string        `xml:"file,attr"`
	Line    int           `xml:"line,attr"`
	Failure *junitFailure `xml:"failure"`
}

type junitFailure struct {
	Message string `xml:"message,attr"`
}

func (t *tested) junit(w io.Writer) error {
	suite := junitSuite{Name: "phpwhy rules test", Tests: len(t.outcomes) + len(t.problems), Failures: t.failures()}
	for _, p := range t.problems {
		suite.Cases = append(suite.Cases, junitCase{Class: p.File, Name: "loads", File: p.File, Line: p.Line, Failure: &junitFailure{visible(p.String())}})
	}
	for i := range t.outcomes {
		o := &t.outcomes[i]
		c := junitCase{Class: o.Rule, Name: visible(caseName(o)), File: o.File, Line: o.Line}
		if o.Err != nil {
			c.Failure = &junitFailure{oneLine(o.Err)}
		}
		suite.Cases = append(suite.Cases, c)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(suite); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func (t *tested) sarif() sarifRun {
	run := sarifOfProblems(t.problems)
	seen := make(map[string]bool)
	for i := range t.outcomes {
		o := &t.outcomes[i]
		if o.Err == nil {
			continue
		}
		if !seen[o.Rule] {
			seen[o.Rule] = true
			run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRule{o.Rule, sarifText{"tests of " + o.Rule}})
		}
		run.Results = append(run.Results, sarifResult{o.Rule, "error", sarifText{caseName(o) + ": " + o.Err.Error()}, sarifAt(o.File, o.Line, o.Col)})
	}
	return run
}
