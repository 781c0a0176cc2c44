package cli

import (
	"io"
	"maps"
	"net/url"
	"path/filepath"
	"slices"

	"github.com/phpwhy/phpwhy/rules"
)

// The parts of SARIF 2.1.0 (OASIS) that code hosts read.
type sarifLog struct {
	Schema  string     `json:"$schema"`
	Version string     `json:"version"`
	Runs    []sarifRun `json:"runs"`
}

type sarifRun struct {
	Tool struct {
		Driver sarifDriver `json:"driver"`
	} `json:"tool"`
	Results []sarifResult `json:"results"`
}

type sarifDriver struct {
	Name    string      `json:"name"`
	Version string      `json:"version"`
	Rules   []sarifRule `json:"rules"`
}

type sarifRule struct {
	ID    string    `json:"id"`
	Short sarifText `json:"shortDescription"`
}

type sarifText struct {
	Text string `json:"text"`
}

type sarifResult struct {
	RuleID    string          `json:"ruleId"`
	Level     string          `json:"level"`
	Message   sarifText       `json:"message"`
	Locations []sarifLocation `json:"locations"`
}

type sarifLocation struct {
	Physical struct {
		Artifact struct {
			URI string `json:"uri"`
		} `json:"artifactLocation"`
		Region sarifRegion `json:"region"`
	} `json:"physicalLocation"`
}

type sarifRegion struct {
	StartLine   int `json:"startLine"`
	StartColumn int `json:"startColumn"`
}

func sarifAt(file string, line, col int) []sarifLocation {
	var l sarifLocation
	l.Physical.Artifact.URI = (&url.URL{Path: filepath.ToSlash(file)}).String()
	l.Physical.Region = sarifRegion{max(line, 1), max(col, 1)}
	return []sarifLocation{l}
}

func sarifOfProblems(problems []rules.Problem) sarifRun {
	run := sarifRun{Results: []sarifResult{}}
	codes := rules.Codes()
	used := make(map[string]bool)
	for _, p := range problems {
		used[p.Code] = true
		run.Results = append(run.Results, sarifResult{p.Code, level(p), sarifText{p.Msg}, sarifAt(p.File, p.Line, p.Col)})
	}
	for _, c := range slices.Sorted(maps.Keys(used)) {
		run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRule{c, sarifText{codes[c]}})
	}
	return run
}

func writeSARIF(w io.Writer, run sarifRun) error {
	run.Tool.Driver.Name, run.Tool.Driver.Version = "phpwhy", buildVersion()
	if run.Tool.Driver.Rules == nil {
		run.Tool.Driver.Rules = []sarifRule{}
	}
	return writeJSON(w, sarifLog{Schema: "https://json.schemastore.org/sarif-2.1.0.json", Version: "2.1.0", Runs: []sarifRun{run}})
}
