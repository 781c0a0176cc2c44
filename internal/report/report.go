// Package report tells people and programs what an observation found: as text
// for a terminal and as JSON (schema phpwhy/report/v1).
//
// Contract: field names and nesting of the JSON never change within one
// schema version, every array is present, and both forms say the same. The
// text names the cause first, then its place, its evidence and what to do.
//
// Hazard: nearly every string here was chosen by the observed program or by
// whoever sent it a request. The text form spells out control characters, bidi
// overrides and stray bytes, so that no name can drive a terminal or disguise
// itself; the JSON form escapes them.
//
// Non-goal: it judges nothing. Which rule matches is package rules' business.
package report

import (
	"cmp"
	_ "embed"
	"fmt"
	"maps"
	"slices"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/stack"
)

// Schema names the version of the JSON form.
const Schema = "phpwhy/report/v1"

//go:embed report-v1.schema.json
var jsonSchema []byte

// JSONSchema is the JSON Schema (draft 2020-12) of the JSON form.
func JSONSchema() []byte { return slices.Clone(jsonSchema) }

// Report is one observation of one process and what the rules say about it.
type Report struct {
	Schema       string         `json:"schema"`
	Target       Target         `json:"target"`
	Observation  Observation    `json:"observation"`
	Findings     []Finding      `json:"findings"` // best first
	Undetermined []Undetermined `json:"undetermined"`
	Notes        []string       `json:"notes"`
	Stacks       []Stack        `json:"stacks"` // most frequent first
	// Facts are what was found out beside the stacks, by the names that rules
	// know: "php.memory_usage".
	Facts map[string]any `json:"facts,omitempty"`
	// Variables are those that were asked for; a report without any says
	// nothing of them.
	Variables []capture.Variable `json:"variables,omitempty"`
}

// Target is the observed process.
type Target struct {
	PID        int              `json:"pid"`
	Cmdline    string           `json:"cmdline"`
	Exe        string           `json:"exe"`
	PHPVersion string           `json:"php_version"`
	ZTS        bool             `json:"zts"`
	DebugBuild bool             `json:"debug_build"`
	SAPI       string           `json:"sapi"`
	Symbols    string           `json:"symbols"`
	Layout     string           `json:"layout"`
	Request    *capture.Request `json:"request"` // null when no web request is in progress, or several
	// Requests are those of a threaded server with several at once.
	Requests []capture.ThreadRequest `json:"requests,omitempty"`
}

// Observation says how the process was watched and what that cost it.
type Observation struct {
	Engine        string               `json:"engine"`
	DurationMS    int64                `json:"duration_ms"`
	Stops         int                  `json:"stops"`
	Samples       int                  `json:"samples"`
	PausedUSTotal int64                `json:"paused_us_total"`
	PausedUSMax   int64                `json:"paused_us_max"`
	Breakpoints   []capture.Breakpoint `json:"breakpoints"`
}

// Kinds of findings: Benign is a healthy state, such as an idle worker.
const (
	Cause  = "cause"
	Benign = "benign"
)

// Finding is one rule that matches.
type Finding struct {
	Rule       string     `json:"rule"`
	Severity   string     `json:"severity"`   // info, low, medium, high or critical
	Confidence float64    `json:"confidence"` // 0 to 1
	Kind       string     `json:"kind"`       // Cause or Benign
	Title      string     `json:"title"`
	Message    string     `json:"message"`
	Fix        string     `json:"fix"`
	PHP        Site       `json:"php"` // all empty when the rule names no place
	Evidence   []Evidence `json:"evidence"`
	Matched    int        `json:"matched"` // stops or samples that match, of Of
	Of         int        `json:"of"`
}

// Site is a place in PHP code.
type Site struct {
	Function string `json:"function"`
	Class    string `json:"class"`
	File     string `json:"file"`
	Line     int    `json:"line"` // 0 when unknown
}

// Evidence is one thing a rule saw, N times; the sizes are 0 when it is not
// about a size.
type Evidence struct {
	What      string `json:"what"`
	N         int    `json:"n"`
	FromBytes uint64 `json:"from_bytes"`
	ToBytes   uint64 `json:"to_bytes"`
}

// Undetermined is a rule that could not be decided, and the evidence it lacked.
type Undetermined struct {
	Rule    string   `json:"rule"`
	Missing []string `json:"missing"`
	// Fits is the rule's title when the native stacks that it wants were seen; "" else.
	Fits string `json:"fits"`
}

// Stack is a joined stack and how often it was seen at events of one kind.
type Stack struct {
	Count int               `json:"count"`
	Kind  capture.EventKind `json:"kind"`
	TIDs  []int             `json:"tids"` // the threads, ascending
	stack.Stack
}

// Verdict is what the rules say.
type Verdict struct {
	Findings     []Finding
	Undetermined []Undetermined
	Notes        []string // rules that were skipped or failed, and why
}

// Build reports a capture and its verdict. For identical JSON from a live
// observation and its file, normalize the capture first (capture.Normalize).
func Build(c *capture.Capture, v Verdict) *Report {
	t, o := c.Target, c.Observation
	r := &Report{
		Schema: Schema,
		Target: Target{PID: t.PID, Cmdline: t.Cmdline, Exe: t.Exe, PHPVersion: t.PHPVersion, ZTS: t.ZTS, DebugBuild: t.DebugBuild,
			SAPI: t.SAPI, Symbols: t.Symbols, Layout: t.Layout, Request: t.Request, Requests: present(t.Requests)},
		Observation: Observation{Engine: o.Engine, DurationMS: o.DurationMS, Stops: o.Stops, Samples: o.Samples,
			PausedUSTotal: o.PausedUSTotal, PausedUSMax: o.PausedUSMax, Breakpoints: present(o.Breakpoints)},
		Findings:     present(v.Findings),
		Undetermined: present(v.Undetermined),
		Facts:        maps.Clone(c.Facts),
		Variables:    present(c.Variables),
	}
	for i := range r.Findings {
		r.Findings[i].Evidence = present(r.Findings[i].Evidence)
	}
	for i := range r.Undetermined {
		r.Undetermined[i].Missing = present(r.Undetermined[i].Missing)
	}
	var dropped int
	r.Stacks, dropped = group(c)
	if n := endNote(o.Ended); n != "" {
		r.Notes = append(r.Notes, n)
	}
	if dropped > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("events left out because they point at no stack: %d", dropped))
	}
	r.Notes = append(present(append(r.Notes, o.Notes...)), v.Notes...)
	return r
}

// present is a copy of s that is an array in JSON, even when it is empty.
func present[T any](s []T) []T { return append(make([]T, 0, len(s)), s...) }

// endNote says why an observation ended when that was not as asked for.
func endNote(ended string) string {
	switch ended {
	case "target-exited":
		return "the process exited while it was observed"
	case "target-exec":
		return "the process started another program while it was observed"
	case "cancelled":
		return "the observation was cancelled"
	}
	return ""
}

// group counts the events by stack and kind; dropped ones point at no stack.
func group(c *capture.Capture) (groups []Stack, dropped int) {
	type key struct {
		stack int
		kind  capture.EventKind
	}
	index := make(map[key]int)
	groups = []Stack{}
	for _, e := range c.Events {
		if e.Stack < 0 || e.Stack >= len(c.Stacks) {
			dropped++
			continue
		}
		k := key{e.Stack, e.Kind}
		i, ok := index[k]
		if !ok {
			i = len(groups)
			index[k] = i
			s := c.Stacks[e.Stack]
			s.Frames = present(s.Frames)
			groups = append(groups, Stack{Kind: e.Kind, Stack: s, TIDs: []int{}})
		}
		g := &groups[i]
		g.Count++
		if at, found := slices.BinarySearch(g.TIDs, e.TID); !found {
			g.TIDs = slices.Insert(g.TIDs, at, e.TID)
		}
	}
	slices.SortStableFunc(groups, func(a, b Stack) int { return cmp.Compare(b.Count, a.Count) })
	return groups, dropped
}
