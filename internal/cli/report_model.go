package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/report"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/triage"
)

// addCapture is the simple model of captures of one process each.
func addCapture(m *triage.Model, in *input, r ruleSet) error {
	c := in.capture
	if err := c.Normalize(); err != nil {
		return err
	}
	said, err := r.set.Evaluate(capture.Observe(c), rulesOptions())
	if err != nil {
		return err
	}
	v := report.FromRules(said)
	wi := len(m.Workers)
	w := triage.Worker{PID: c.Target.PID, Target: c.Target, Request: c.Target.Request, Looks: 1, Stops: c.Observation.Stops,
		Samples: c.Observation.Samples, Paused: c.Observation.PausedUSMax, PausedUS: c.Observation.PausedUSTotal, Facts: c.Facts}
	w.Target.Request = nil
	counts := map[int]int{}
	for _, e := range c.Events {
		id := addStack(m, &c.Stacks[e.Stack])
		s := &m.Stacks[id]
		s.Count++
		m.Events++
		counts[id]++
		if n := len(s.Seen); n > 0 && s.Seen[n-1].Worker == wi && s.Seen[n-1].Kind == e.Kind {
			s.Seen[n-1].N++
		} else {
			s.Seen = append(s.Seen, triage.Seen{Worker: wi, Kind: e.Kind, N: 1})
		}
	}
	for id, n := range counts {
		if n > counts[w.Stack] || n == counts[w.Stack] && id < w.Stack {
			w.Stack = id
		}
	}
	if len(m.Stacks) > 0 {
		for _, f := range m.Stacks[w.Stack].Frames {
			if f.Kind == stack.PHP && !f.Internal {
				w.Site = triage.Site{Function: f.Function, Class: f.Class, File: f.File, Line: f.Line}
				break
			}
		}
	}
	g := triage.Group{Title: "no rule explains this", Site: w.Site}
	for _, f := range v.Findings {
		site := triage.Site(f.PHP)
		w.Findings = append(w.Findings, triage.WorkerFinding{Rule: f.Rule, Confidence: f.Confidence, Message: f.Message, Site: site})
		addFinding(m, f, wi)
	}
	if len(v.Findings) > 0 {
		f := v.Findings[0]
		g = triage.Group{Title: f.Title, Rule: f.Rule, Kind: f.Kind, Severity: f.Severity, Message: f.Message, Fix: f.Fix, Site: triage.Site(f.PHP)}
	}
	w.Group = addGroup(m, g, wi, w.Stack)
	if q := w.Request; q != nil {
		m.Groups[w.Group].URIs = append(m.Groups[w.Group].URIs, triage.URICount{Method: q.Method, URI: strings.SplitN(q.URI, "?", 2)[0], N: 1})
	}
	m.Workers = append(m.Workers, w)
	m.Looks++
	m.Sources = append(m.Sources, triage.Source{Name: in.name, Truncated: in.cut != nil})
	m.Notes = append(m.Notes, c.Observation.Notes...)
	m.Summary = fmt.Sprintf("%d workers, %d groups", len(m.Workers), len(m.Groups))
	return nil
}

func addFinding(m *triage.Model, f report.Finding, w int) {
	i := slices.IndexFunc(m.Findings, func(x triage.Finding) bool { return x.Rule == f.Rule })
	if i < 0 {
		i = len(m.Findings)
		m.Findings = append(m.Findings, triage.Finding{Rule: f.Rule, Kind: f.Kind, Severity: f.Severity, Title: f.Title, Message: f.Message, Fix: f.Fix, Confidence: f.Confidence})
	}
	m.Findings[i].Workers = append(m.Findings[i].Workers, w)
}

func addGroup(m *triage.Model, g triage.Group, w, st int) int {
	i := slices.IndexFunc(m.Groups, func(x triage.Group) bool { return x.Rule == g.Rule && x.Site == g.Site })
	if i < 0 {
		i = len(m.Groups)
		m.Groups = append(m.Groups, g)
	}
	x := &m.Groups[i]
	x.Workers = append(x.Workers, w)
	x.Looks++
	if !slices.Contains(x.Stacks, st) {
		x.Stacks = append(x.Stacks, st)
	}
	return i
}

func addStack(m *triage.Model, s *stack.Stack) int {
	same := func(x triage.Stack) bool {
		return slices.EqualFunc(x.Frames, s.Frames, func(a, b stack.Frame) bool {
			return a.Kind == b.Kind && a.Function == b.Function && a.Class == b.Class && a.File == b.File && a.Line == b.Line && a.Inlined == b.Inlined
		})
	}
	i := slices.IndexFunc(m.Stacks, same)
	if i < 0 {
		i = len(m.Stacks)
		places := make([]triage.Place, len(s.Frames))
		for j := range places {
			places[j].Binary = -1
		}
		m.Stacks = append(m.Stacks, triage.Stack{Frames: s.Frames, Places: places, End: s.End, Error: s.Error})
	}
	return i
}

func startOf(*input) time.Time { return time.Time{} }
