package report

import (
	_ "embed"
	"fmt"
	"io"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/stack"
)

// WatchedSchema names the version of the JSON form of a Watched.
const WatchedSchema = "phpwhy/finding/v1"

//go:embed finding-v1.schema.json
var watchedSchema []byte

// WatchedJSONSchema is the JSON Schema (draft 2020-12) of a Watched.
func WatchedJSONSchema() []byte { return slices.Clone(watchedSchema) }

// Bounds of a Watched: one line, which log collectors cut off when it is too
// long. journald's limit is 48 KiB (LineMax).
const (
	maxWatchedFindings = 4
	maxWatchedEvidence = 4
	maxWatchedFrames   = 24
	maxWatchedNotes    = 8
	maxWatchedText     = 320 // bytes of each string
)

// Watched is what phpwhy watch says of one worker that misbehaved.
type Watched struct {
	Schema      string             `json:"schema"`
	Time        time.Time          `json:"time"` // of the trigger
	Trigger     Trigger            `json:"trigger"`
	Worker      WatchedWorker      `json:"worker"`
	Verdict     string             `json:"verdict"`  // Cause, Benign or Unexplained
	Findings    []Finding          `json:"findings"` // best first
	Stack       []string           `json:"stack"`    // the most frequent one, innermost frame first
	Observation WatchedObservation `json:"observation"`
	Capture     string             `json:"capture"` // path of the file with all of it, "" when there is none
	Notes       []string           `json:"notes"`
}

// Unexplained is the verdict when no rule matches.
const Unexplained = "unexplained"

// Trigger says what the worker did.
type Trigger struct {
	Kind         string  `json:"kind"`           // cpu or age
	CPUPct       float64 `json:"cpu_pct"`        // of one processor, waiting for one included; 0 for age
	ForMS        int64   `json:"for_ms"`         // for how long; 0 for age
	RequestAgeMS int64   `json:"request_age_ms"` // 0 for cpu
}

// WatchedWorker is the worker; pid and start time identify it.
type WatchedWorker struct {
	PID        int              `json:"pid"`
	StartTicks uint64           `json:"start_ticks"`
	Pool       string           `json:"pool"`
	Cmdline    string           `json:"cmdline"`
	Exe        string           `json:"exe"`
	PHPVersion string           `json:"php_version"`
	SAPI       string           `json:"sapi"`
	Request    *capture.Request `json:"request"` // null when there is none, or several
}

// WatchedObservation says how the worker was observed and what that cost it.
type WatchedObservation struct {
	Engine        string `json:"engine"`
	DurationMS    int64  `json:"duration_ms"`
	Stops         int    `json:"stops"`
	Samples       int    `json:"samples"`
	PausedUSTotal int64  `json:"paused_us_total"`
	PausedUSMax   int64  `json:"paused_us_max"`
	Ended         string `json:"ended"`
}

// BuildWatched sums one observation up. Whoever calls it fills in the rest:
// time, trigger, pool, start time and the capture's path.
func BuildWatched(c *capture.Capture, v Verdict) *Watched {
	t, o := c.Target, c.Observation
	w := &Watched{
		Schema: WatchedSchema,
		Worker: WatchedWorker{PID: t.PID, Cmdline: short(t.Cmdline), Exe: short(t.Exe), PHPVersion: t.PHPVersion, SAPI: t.SAPI},
		Observation: WatchedObservation{Engine: o.Engine, DurationMS: o.DurationMS, Stops: o.Stops, Samples: o.Samples,
			PausedUSTotal: o.PausedUSTotal, PausedUSMax: o.PausedUSMax, Ended: o.Ended},
		Verdict: Unexplained, Findings: []Finding{}, Stack: []string{}, Notes: []string{},
	}
	if q := t.Request; q != nil {
		w.Worker.Request = &capture.Request{Method: short(q.Method), URI: short(q.URI), Script: short(q.Script), AgeMS: q.AgeMS}
	}
	for i := range v.Findings[:min(len(v.Findings), maxWatchedFindings)] {
		w.Findings = append(w.Findings, shortFinding(v.Findings[i]))
	}
	if len(w.Findings) > 0 {
		w.Verdict = w.Findings[0].Kind
	}
	if groups, _ := group(c); len(groups) > 0 {
		for i := range groups[0].Frames[:min(len(groups[0].Frames), maxWatchedFrames)] {
			w.Stack = append(w.Stack, short(oneFrame(&groups[0].Frames[i])))
		}
	}
	w.Note(o.Notes...)
	w.Note(v.Notes...)
	return w
}

// Note adds notes as far as there is room.
func (w *Watched) Note(notes ...string) {
	for _, n := range notes[:min(len(notes), maxWatchedNotes-len(w.Notes))] {
		w.Notes = append(w.Notes, short(n))
	}
}

// shortFinding is a finding with all of its parts bounded.
func shortFinding(f Finding) Finding {
	f.Title, f.Message, f.Fix = short(f.Title), short(f.Message), short(f.Fix)
	f.PHP.Function, f.PHP.Class, f.PHP.File = short(f.PHP.Function), short(f.PHP.Class), short(f.PHP.File)
	f.Evidence = present(f.Evidence[:min(len(f.Evidence), maxWatchedEvidence)])
	for i := range f.Evidence {
		f.Evidence[i].What = short(f.Evidence[i].What)
	}
	return f
}

// short cuts a text off at maxWatchedText bytes, and not inside a character.
// In JSON control characters grow sixfold, so they are left out.
func short(s string) string {
	out := make([]byte, 0, min(len(s), maxWatchedText))
	for _, r := range s {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			r = ' '
		}
		if len(out)+utf8.RuneLen(r) > maxWatchedText {
			return string(out) + "…"
		}
		out = utf8.AppendRune(out, r)
	}
	return string(out)
}

// oneFrame is a frame in one line: "mremap", "php: A::b() at file:12".
func oneFrame(f *stack.Frame) string {
	name := f.Function
	if f.Kind != stack.PHP {
		if name == "" {
			name = fmt.Sprintf("%s+%#x", f.Module, f.Offset)
		}
		return name
	}
	if f.Class != "" {
		name = f.Class + "::" + name
	}
	if f.File == "" {
		return "php: " + name + "()"
	}
	return fmt.Sprintf("php: %s() at %s:%d", name, f.File, f.Line)
}

// WatchedJSON writes w as one line of JSON.
func WatchedJSON(out io.Writer, w *Watched) error { return writeJSON(out, w) }
