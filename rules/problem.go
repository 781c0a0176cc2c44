package rules

import (
	"fmt"
	"sort"
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

// The codes of problems. They are frozen: people filter by them.
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
	codeOverride  = "E011" // an override of what is not there, or no longer
)

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

// editDistance is Levenshtein's, or limit+1 when it is larger than limit.
func editDistance(a, b string, limit int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit || len(a) > 256 || len(b) > 256 {
		return limit + 1
	}
	prev := make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := range len(a) {
		cur := make([]int, len(b)+1)
		cur[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			cur[j+1] = min(prev[j]+cost, prev[j+1]+1, cur[j]+1)
		}
		prev = cur
	}
	return min(prev[len(b)], limit+1)
}

func didYouMean(word string, known []string) string {
	if n := nearest(word, known); n != "" {
		return fmt.Sprintf(" (did you mean %s?)", n)
	}
	return ""
}
