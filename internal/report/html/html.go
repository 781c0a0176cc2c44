// Package html writes a report as one web page: findings, a flame graph, the
// workers, and how evidence changed over time.
//
// Contract: the page is whole in itself. It asks no network for anything, and
// its content security policy forbids it to; it works from a file, is readable
// without scripts (but for the flame graph), and prints.
//
// Hazard: nearly every string was chosen by the observed programs or by whoever
// sent them a request. Text enters the page through html/template's escaping
// or as JSON in a data block, from where the script takes it by textContent
// alone; only this package's own style and script may run.
//
// Non-goal: it judges nothing, and it serves no pages.
package html

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"html/template"
	"io"
	"sync"

	"github.com/phpwhy/phpwhy/internal/report"
	"github.com/phpwhy/phpwhy/internal/series"
	"github.com/phpwhy/phpwhy/internal/triage"
)

//go:embed page.html
var pageText string

//go:embed page.css
var style string

//go:embed page.js
var script string

var page = sync.OnceValue(func() *template.Template { return template.Must(template.New("page").Parse(pageText)) })

// The bounds of one page. What is over them is counted on it.
const (
	maxCards   = 60
	maxRows    = 5000 // of the table of workers
	maxCharts  = 12   // of each kind
	maxNodes   = 150_000
	maxListed  = 8 // of a group's URIs and waits
	maxNotes   = 200
	maxStackIn = 80 // frames of a stack in a card
)

// view is what the template shows.
type view struct {
	CSP                 string
	Style               template.CSS
	Script, Data        template.JS
	Title, Summary      string
	Facts               []fact
	Cards               []card
	MoreCards           int
	Events              int
	Charts              []chartSet
	Rows                []row
	MoreRows            int
	Hosts               bool // there are several
	Pools               bool
	Notes               []string
	MoreNotes           int
	Failures            []failure
	MoreFailures        int
	Sources             []triage.Source
	Binaries            []triage.Binary
	Dropped             int
	HasStops, HasSample bool
}

type fact struct{ Name, Value string }

type failure struct {
	Host  string
	PID   int
	Round int
	Error string
}

// Write writes the page. over is how evidence changed, which may be nothing.
func Write(w io.Writer, m *triage.Model, over []series.Series) error {
	f := newFlame(m)
	data, err := json.Marshal(f) // with < > & as \u003c …: nothing in it ends the data block
	if err != nil {
		return err
	}
	v := view{
		CSP: "default-src 'none'; style-src " + source(style) + "; script-src " + source(script) +
			"; base-uri 'none'; form-action 'none'",
		Style: template.CSS(style), Script: template.JS(script), Data: template.JS(data),
		Title: title(m), Summary: report.Visible(m.Summary), Facts: facts(m), Events: m.Events,
		Hosts: len(m.Hosts) > 1, Sources: visibleSources(m.Sources), Binaries: visibleBinaries(m.Binaries), Dropped: f.Dropped,
	}
	v.HasStops, v.HasSample = f.stops, f.samples
	v.Charts = chartSets(m, over)
	charts := byWorker(m, over)
	for i := range m.Groups[:min(len(m.Groups), maxCards)] {
		v.Cards = append(v.Cards, newCard(m, i, charts))
	}
	v.MoreCards = len(m.Groups) - len(v.Cards)
	for i := range m.Workers[:min(len(m.Workers), maxRows)] {
		v.Rows = append(v.Rows, newRow(m, i))
		v.Pools = v.Pools || m.Workers[i].Pool != ""
	}
	v.MoreRows = len(m.Workers) - len(v.Rows)
	v.about(m)
	return page().Execute(w, &v)
}

// about lists what could not be looked at, and what else is to be known.
func (v *view) about(m *triage.Model) {
	for _, n := range m.Notes[:min(len(m.Notes), maxNotes)] {
		v.Notes = append(v.Notes, report.Visible(n))
	}
	v.MoreNotes = len(m.Notes) - len(v.Notes)
	for _, x := range m.Failures[:min(len(m.Failures), maxNotes)] {
		v.Failures = append(v.Failures, failure{hostName(m, x.Host), x.PID, x.Round, report.Visible(x.Error)})
	}
	v.MoreFailures = len(m.Failures) - len(v.Failures)
}

// source permits one inline element by its hash.
func source(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

func hostName(m *triage.Model, i int) string {
	if i < 0 || i >= len(m.Hosts) {
		return ""
	}
	return report.Visible(m.Hosts[i].Name)
}

func visibleSources(in []triage.Source) []triage.Source {
	out := make([]triage.Source, len(in))
	for i, s := range in {
		out[i] = triage.Source{Name: report.Visible(s.Name), Truncated: s.Truncated, Damage: report.Visible(s.Damage)}
	}
	return out
}

func visibleBinaries(in []triage.Binary) []triage.Binary {
	out := make([]triage.Binary, len(in))
	for i, b := range in {
		out[i] = triage.Binary{Path: report.Visible(b.Path), BuildID: report.Visible(b.BuildID)}
	}
	return out
}
