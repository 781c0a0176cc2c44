package rules

import (
	"errors"
	"fmt"
	"sort"
	"time"
)

// Site is a PHP frame that a finding points at.
type Site struct {
	Function string
	Class    string
	File     string
	Line     int
}

// Evidence is one figure that supports a finding.
type Evidence struct {
	What               string
	N                  int
	FromBytes, ToBytes uint64 // 0 when not about bytes
}

// Finding is a rule that matched.
type Finding struct {
	Rule       string
	Revision   int
	Severity   Severity
	Kind       Kind
	Confidence float64 // 0 to 1
	Title      string
	Message    string
	Explain    string
	Fix        string
	Refs       []string
	Site       *Site // nil when no PHP frame was captured
	Evidence   []Evidence
	Matched    int // events with a matching stack
	Of         int // events that were looked at
}

// Result is what one rule said.
type Result struct {
	Rule    *Rule
	Verdict Verdict
	// Missing is the evidence that an undetermined rule lacked, with how to get it.
	Missing []string
	// Errors are expressions that failed while they were evaluated.
	Errors []string
	// Skipped says why the rule was not evaluated: it is meant for other targets.
	Skipped string
	// Finding is set for Match, also when it was not reported.
	Finding *Finding
	// Hidden says why a match is not among the reported findings.
	Hidden string
	// Via names the alternative that most matching stacks took.
	Via string
}

// Report is what all rules said of one observation.
type Report struct {
	Findings []Finding // to be shown, most severe and most certain first
	Results  []Result  // of every rule, by id
}

// Options of an evaluation.
type Options struct {
	Now time.Time // against which exceptions expire
}

var errNoStack = errors.New("event without a stack")

// evaluation is one rule at work on one observation.
type evaluation struct {
	o          *Observation
	vars       map[string]any
	res        *Result
	conditions []condition
	lacks      map[string]bool
}

// condition is a stack condition that was evaluated.
type condition struct {
	n       *seenNode
	hits    map[int]hit
	matched map[int]bool // events
	of      int
}

func (x *evaluation) missing(names []string) {
	for _, n := range names {
		if !x.lacks[n] {
			x.lacks[n] = true
			x.res.Missing = append(x.res.Missing, describeMissing(n))
		}
	}
}

// Validate reports whether an observation is consistent.
func (o *Observation) Validate() error {
	for i := range o.Events {
		if s := o.Events[i].Stack; s < 0 || s >= len(o.Stacks) {
			return fmt.Errorf("%w: event %d names stack %d of %d", errNoStack, i, s, len(o.Stacks))
		}
	}
	return nil
}

// Evaluate runs every rule on an observation.
func (s *Set) Evaluate(o *Observation, opt Options) (Report, error) {
	if err := o.Validate(); err != nil {
		return Report{}, err
	}
	vars := collect(o)
	var rep Report
	for _, r := range s.rules {
		rep.Results = append(rep.Results, r.evaluate(o, vars, opt))
	}
	s.hide(rep.Results)
	for i := range rep.Results {
		if res := &rep.Results[i]; res.Finding != nil && res.Hidden == "" {
			rep.Findings = append(rep.Findings, *res.Finding)
		}
	}
	sort.SliceStable(rep.Findings, func(i, j int) bool {
		a, b := &rep.Findings[i], &rep.Findings[j]
		if ra, rb := rank(a.Severity), rank(b.Severity); ra != rb {
			return ra > rb
		}
		return a.Confidence > b.Confidence
	})
	return rep, nil
}

func rank(s Severity) int {
	for i, v := range severities {
		if v == string(s) {
			return i
		}
	}
	return -1
}

// hide applies supersedes and benign rules.
func (s *Set) hide(results []Result) {
	reported := func(res *Result) bool { return res.Finding != nil && res.Hidden == "" }
	for i := range results {
		if r := &results[i]; reported(r) {
			for _, id := range r.Rule.Supersedes {
				for j := range results {
					if o := &results[j]; o.Rule.ID == id && reported(o) {
						o.Hidden = "superseded by " + r.Rule.ID
					}
				}
			}
		}
	}
	for i := range results {
		r := &results[i]
		if !reported(r) || r.Rule.Kind != Benign {
			continue
		}
		for j := range results {
			if o := &results[j]; reported(o) && o.Rule.Kind == Cause {
				o.Hidden = "the process is healthy by " + r.Rule.ID
			}
		}
	}
}

func (r *Rule) evaluate(o *Observation, vars map[string]any, opt Options) Result {
	res := Result{Rule: r}
	if ok, why := r.applies.to(&o.Target); !ok {
		res.Skipped = why
		return res
	}
	x := &evaluation{o: o, vars: vars, res: &res, lacks: make(map[string]bool)}
	res.Verdict = r.match.eval(x)
	if res.Verdict != Undetermined {
		res.Missing = nil
	}
	if res.Verdict != Match {
		return res
	}
	f := &Finding{
		Rule: r.ID, Revision: r.Revision, Severity: r.Severity, Kind: r.Kind,
		Title: r.Title, Explain: r.Explain, Fix: r.Fix, Refs: r.Refs,
	}
	res.Finding = f
	sites, unknowns := x.conclude(f)
	res.Via = x.via()
	f.Confidence = r.confidence(vars, unknowns)
	f.Evidence = r.evidence(vars, f)
	vals := make(map[string]any, len(r.bind)+len(sites))
	for name, s := range sites {
		vals[name] = s.text()
	}
	for name, e := range r.bind {
		if v, err := e.eval(vars); err == nil {
			vals[name] = v.Value()
		}
	}
	f.Message = r.message.render(vals)
	if f.Confidence < r.score.reportAt {
		res.Hidden = fmt.Sprintf("its score %.2f is below %.2f", f.Confidence, r.score.reportAt)
	}
	for _, e := range r.exceptions {
		if f.Site != nil && opt.Now.Before(e.until) && glob(e.site, f.Site.text()) {
			res.Hidden = "excepted: " + e.reason
		}
	}
	return res
}

func (s *Site) text() string { return fmt.Sprintf("%s:%d", s.File, s.Line) }

// conclude counts the matching events, votes on the captures, and returns the
// mean number of frames that were unknown.
func (x *evaluation) conclude(f *Finding) (sites map[string]*Site, unknowns float64) {
	votes := make(map[string]map[Site]int)
	for ci, c := range x.conditions {
		n, sum := 0, 0
		for i := range c.matched {
			ev := &x.o.Events[i]
			h := c.hits[ev.Stack]
			n++
			sum += h.unknowns
			for name, fi := range h.captures {
				fr := &x.o.Stacks[ev.Stack].Frames[fi]
				if votes[name] == nil {
					votes[name] = make(map[Site]int)
				}
				votes[name][Site{fr.Name, fr.Class, fr.File, fr.Line}]++
			}
		}
		if n > 0 {
			unknowns = max(unknowns, float64(sum)/float64(n))
		}
		// The first stack condition is the one that a rule is about.
		if ci == 0 {
			f.Matched, f.Of = n, c.of
		}
	}
	sites = make(map[string]*Site)
	for name, vs := range votes {
		var best Site
		most := 0
		for s, n := range vs {
			if n > most || n == most && s.text() < best.text() {
				best, most = s, n
			}
		}
		sites[name] = &best
	}
	f.Site = sites["site"]
	return sites, unknowns
}

// via is the alternative that most events matched by.
func (x *evaluation) via() string {
	count := make(map[string]int)
	for _, c := range x.conditions {
		for i := range c.matched {
			if v := c.hits[x.o.Events[i].Stack].via; v != "" {
				count[v]++
			}
		}
	}
	best := ""
	for v, n := range count {
		if n > count[best] || n == count[best] && v < best {
			best = v
		}
	}
	return best
}

func (r *Rule) confidence(vars map[string]any, unknowns float64) float64 {
	c := r.score.base + r.score.perUnknown*unknowns
	for _, p := range r.score.plus {
		if ok, err := p.if_.truth(vars); err == nil && ok {
			c += p.add
		}
	}
	return min(1, max(0, float64(int(c*100+0.5))/100))
}

func (r *Rule) evidence(vars map[string]any, f *Finding) []Evidence {
	var out []Evidence
	if steps, ok := vars["chain.steps"].(int64); ok && r.chain && steps > 0 {
		from, _ := vars["chain.start_bytes"].(int64)
		to, _ := vars["chain.end_bytes"].(int64)
		out = append(out, Evidence{
			What: fmt.Sprintf("%v grew one block", vars["chain.symbol"]), N: int(steps), FromBytes: uint64(from), ToBytes: uint64(to),
		})
	}
	return append(out, Evidence{What: "stacks that match", N: f.Matched})
}
