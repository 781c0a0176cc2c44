package rules

import (
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
)

// Problem is one thing that is wrong with a rule file.
type Problem struct {
	File      string
	Line, Col int // from 1; 0 when the whole file is meant
	Code      string
	Msg       string
}

func (p Problem) String() string {
	return fmt.Sprintf("%s:%d:%d %s %s", p.File, p.Line, p.Col, p.Code, p.Msg)
}

// The codes of problems: E for errors, with which a rule is not loaded, W for
// warnings of Lint. They are frozen: people filter by them.
const (
	codeYAML      = "E001" // not YAML, or YAML that is not accepted
	codeUnknown   = "E002" // unknown key
	codeDuplicate = "E003" // duplicate key or id
	codeType      = "E004" // wrong type, among them unquoted scalars that YAML reads as something else
	codeMissing   = "E005" // a required key is missing
	codeValue     = "E006" // a value that is not allowed
	codePattern   = "E007" // a frame line
	codeExpr      = "E008" // an expression
	codeTemplate  = "E009" // a template
	codeCycle     = "E010" // supersedes leads back
	codeOverride  = "E011" // an override of a revision that is no longer there
	codeCapture   = "E012" // a test's capture can't be read

	codeNoAnchor   = "W101" // an alternative without an exact name: it is tried on every stack
	codeSymbol     = "W102" // a name in no known symbol list
	codeNoVersion  = "W103" // a version range that no PHP meets
	codeSupersedes = "W104" // supersedes of a rule that does not exist
	codeUntested   = "W105" // a rule without a test
	codeNoNearMiss = "W106" // a rule of which no test says that it does not match
	codeUnused     = "W107" // bound and not used
	codeException  = "W108" // an exception that never applies
	codeTestRule   = "W109" // a test of a rule that does not exist
	codeTwice      = "W110" // two alternatives that are the same
	codeSAPI       = "W111" // a SAPI that PHP does not have
	codeNoOverride = "W112" // an override of a rule that does not exist
	codeNoReport   = "W113" // a score that never reaches report_at
)

// Warning reports whether the rule works in spite of the problem.
func (p Problem) Warning() bool { return strings.HasPrefix(p.Code, "W") }

func sortProblems(ps []Problem) {
	sort.SliceStable(ps, func(i, j int) bool {
		a, b := ps[i], ps[j]
		if a.File != b.File {
			return a.File < b.File
		}
		if a.Line != b.Line {
			return a.Line < b.Line
		}
		return a.Col < b.Col
	})
}

// nearest returns the known word that a misspelt one probably means, "" when
// none is close.
func nearest(word string, known []string) string {
	best, dist := "", 1+len(word)/3
	for _, k := range known {
		if d := editDistance(word, k, dist); d < dist || d == dist && best == "" {
			best, dist = k, d
		}
	}
	return best
}

// editDistance counts the letters to add, drop, change or swap with their
// neighbour (optimal string alignment); it is limit+1 when there are more.
func editDistance(a, b string, limit int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit || len(a) > 256 || len(b) > 256 {
		return limit + 1
	}
	before, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := range len(a) {
		cur[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			cur[j+1] = min(prev[j]+cost, prev[j+1]+1, cur[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				cur[j+1] = min(cur[j+1], before[j-1]+1)
			}
		}
		if slices.Min(cur) > limit && slices.Min(prev) > limit {
			return limit + 1
		}
		before, prev, cur = prev, cur, before
	}
	return min(prev[len(b)], limit+1)
}

func didYouMean(word string, known []string) string {
	if n := nearest(word, known); n != "" {
		return fmt.Sprintf(" (did you mean %s?)", n)
	}
	return ""
}

// codeTitles say in a few words what each code is about.
var codeTitles = map[string]string{
	codeYAML: "the file can't be read", codeUnknown: "unknown key", codeDuplicate: "duplicate key or id",
	codeType: "wrong type, or a scalar that needs quotes", codeMissing: "a required key is missing", codeValue: "a value that is not allowed",
	codePattern: "a frame line that can't be read", codeExpr: "an expression that can't be compiled", codeTemplate: "a message that can't be filled in",
	codeCycle: "supersedes leads back to the rule", codeOverride: "an override of another rule or revision", codeCapture: "a test's capture can't be read",
	codeNoAnchor: "an alternative without an exact name", codeSymbol: "a name in no known symbol list", codeNoVersion: "a version range that no PHP meets",
	codeSupersedes: "supersedes of a rule that does not exist", codeUntested: "a rule without a test", codeNoNearMiss: "a rule without a test that must not match",
	codeUnused: "something is bound and not used", codeException: "an exception that never applies", codeTestRule: "a test of a rule that does not exist",
	codeTwice: "two alternatives that are the same", codeSAPI: "a SAPI that PHP does not have", codeNoOverride: "an override of a rule that does not exist",
	codeNoReport: "a score that never reaches report_at",
}

// Codes lists the codes of problems with what they are about.
func Codes() map[string]string { return maps.Clone(codeTitles) }

// NoCapture is the problem of a case whose capture can't be read.
func (c *Case) NoCapture(err error) Problem {
	return Problem{c.File, c.Line, c.Col, codeCapture, err.Error()}
}
