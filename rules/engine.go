package rules

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"sort"
	"time"
)

// Site is a frame that a finding points at, mostly a PHP frame.
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
	Labels     map[string]string // the rule's; not to be changed
	Site       *Site             // the capture called site; nil when there is none
	// Captures are the frames that the rule's as= captured: of each, the place
	// that most events agree on. Native frames have no class.
	Captures map[string]Site
	Evidence []Evidence
	Matched  int // events with a matching stack
	Of       int // events that were looked at
}

// Result is what one rule said.
type Result struct {
	Rule    *Rule
	Verdict Verdict
	// Missing is the evidence that an undetermined rule lacked, with how to get it.
	Missing []string
	// Near is how near an undetermined rule came, 0 to 1.
	Near float64
	// Fits tells of an undetermined rule that every native stack which it wants was
	// seen, and nothing that refutes it: it lacks evidence of other kinds.
	Fits bool
	// Specific is, of a rule that Fits, how much the patterns that match ask for by
	// name: a function counts 1, one of several functions that part of it.
	Specific float64
	// Errors are expressions that failed while they were evaluated, and why a rule
	// was given up.
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
	// Now is the time at which exceptions expire; with the zero time none does.
	Now time.Time
}

// ErrNoStack is returned for an event whose stack is not in the observation.
var ErrNoStack = errors.New("event without a stack")

// evaluation is one rule at work on one observation.
type evaluation struct {
	o    *Observation
	vars map[string]any
	res  *Result
	held []*condition // the stack conditions that made it match
	// What all rules share: the stacks as numbers, and the patterns that
	// match them, by FrameKind.
	c      *corpus
	search [2]*search
}

func (x *evaluation) sight(stack int) *sight { return look(&x.o.Stacks[stack]) }

// Validate reports whether an observation is consistent.
func (o *Observation) Validate() error {
	for i := range o.Events {
		if s := o.Events[i].Stack; s < 0 || s >= len(o.Stacks) {
			return fmt.Errorf("%w: event %d names stack %d of %d", ErrNoStack, i, s, len(o.Stacks))
		}
	}
	return nil
}

// Evaluate runs every rule on an observation.
func (s *Set) Evaluate(o *Observation, opt Options) (Report, error) {
	if err := o.Validate(); err != nil {
		return Report{}, err
	}
	shared := s.evaluation(o)
	var rep Report
	for _, r := range s.rules {
		rep.Results = append(rep.Results, shared.alone(r, opt))
	}
	s.hide(rep.Results)
	leads(rep.Results)
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

// evaluation is what all rules share of one observation.
func (s *Set) evaluation(o *Observation) *evaluation {
	x := &evaluation{o: o, vars: collect(o), c: intern(o), res: &Result{}}
	x.match(s.compiled(), s.rules)
	return x
}

// compiled is made when it is first needed, and then kept.
func (s *Set) compiled() *matcher {
	s.once.Do(func() { s.matcher = newMatcher(s.rules) })
	return s.matcher
}

// match runs the patterns of the rules that are for this target.
func (x *evaluation) match(m *matcher, rules []*Rule) {
	wanted := make(map[*program]bool)
	for _, r := range rules {
		if ok, _ := r.applies.to(&x.o.Target); !ok || r.match == nil {
			continue
		}
		r.match.walk(func(n node) {
			s, ok := n.(*seenNode)
			if !ok {
				return
			}
			// PHP patterns are tried where the native ones match.
			alts := s.native
			if len(alts) == 0 {
				alts = s.php
			}
			for i := range alts {
				wanted[alts[i].prg] = true
			}
		})
	}
	for k := range x.search {
		x.search[k] = newSearch(m, x.c, FrameKind(k), func(g *program) bool { return wanted[g] })
		x.search[k].run()
	}
}

func rank(s Severity) int {
	for i, v := range severities {
		if v == string(s) {
			return i
		}
	}
	return -1
}

// hide applies supersedes and benign rules. A finding that is superseded still
// supersedes others, so the order of rules changes nothing; Load has refused
// circles, so something is always left.
func (s *Set) hide(results []Result) {
	byID := make(map[string]*Result, len(results))
	var reported []*Result
	for i := range results {
		if r := &results[i]; r.Finding != nil && r.Hidden == "" {
			byID[r.Rule.ID] = r
			reported = append(reported, r)
		}
	}
	for _, r := range reported {
		for _, id := range r.Rule.Supersedes {
			if o := byID[id]; o != nil && o.Hidden == "" {
				o.Hidden = "superseded by " + r.Rule.ID
			}
		}
	}
	for _, r := range reported {
		if r.Rule.Kind != Benign || r.Hidden != "" {
			continue
		}
		for _, o := range reported {
			if o.Rule.Kind == Cause && o.Hidden == "" {
				o.Hidden = "the process is healthy by " + r.Rule.ID
			}
		}
	}
}

// alone evaluates one rule so that nothing it does takes another down: should it
// panic, it is undetermined, and its result says why.
func (x *evaluation) alone(r *Rule, opt Options) (res Result) {
	defer func() {
		if p := recover(); p != nil {
			res = Result{Rule: r, Verdict: Undetermined, Errors: []string{fmt.Sprintf("the rule was skipped: evaluating it failed: %v", p)}}
		}
	}()
	own := *x
	own.res = &res
	res.Rule = r
	own.run(r, opt)
	return res
}

// run evaluates one rule.
func (x *evaluation) run(r *Rule, opt Options) {
	res := x.res
	if ok, why := r.applies.to(&x.o.Target); !ok {
		res.Skipped = why
		return
	}
	said := r.match.eval(x)
	res.Verdict = said.verdict
	switch said.verdict {
	case Undetermined:
		res.Missing, res.Near, res.Fits = describeMissing(said.missing), x.near(r.match), x.fits(r)
		if res.Fits {
			res.Specific = x.specific(r.match)
		}
	case Match:
		x.held = said.held
		x.find(r)
		if f := res.Finding; f.Confidence < r.score.reportAt {
			res.Hidden = fmt.Sprintf("its score %.2f is below %.2f", f.Confidence, r.score.reportAt)
		} else if why, ok := r.excepted(f, opt.Now); ok {
			res.Hidden = "excepted: " + why
		}
	}
}

// find makes the finding of a rule that matches.
func (x *evaluation) find(r *Rule) {
	f := &Finding{
		Rule: r.ID, Revision: r.Revision, Severity: r.Severity, Kind: r.Kind,
		Title: r.Title, Explain: r.Explain, Fix: r.Fix, Refs: r.Refs, Labels: r.Labels,
	}
	x.res.Finding = f
	votes := x.votes()
	x.res.Via = via(votes)
	if len(x.held) > 0 {
		// The first stack condition is the one that a rule is about.
		f.Matched, f.Of = x.held[0].matched, x.held[0].of
	}
	f.Captures = elect(votes)
	if s, ok := f.Captures["site"]; ok {
		f.Site = &s
	}
	f.Confidence = r.confidence(x.vars, unknowns(votes))
	f.Evidence = r.evidence(x.vars, f)
	vals := make(map[string]any, len(f.Captures)+len(r.bind))
	for name, s := range f.Captures {
		vals[name] = s.text()
	}
	for name, e := range r.bind {
		if v, err := e.eval(x.vars); err == nil {
			vals[name] = v.Value()
		}
	}
	f.Message = r.message.render(vals)
}

// excepted reports whether an exception that has not expired covers the finding.
func (r *Rule) excepted(f *Finding, now time.Time) (reason string, ok bool) {
	for _, e := range r.exceptions {
		if f.Site != nil && now.Before(e.until) && f.Site.at(e.site) {
			return e.reason, true
		}
	}
	return "", false
}

// text is how messages, exceptions and test files write a place: file:line,
// or the function when there is no file.
func (s Site) text() string {
	if s.File == "" {
		return s.Function
	}
	return fmt.Sprintf("%s:%d", s.File, s.Line)
}

// at reports whether a glob fits the place, with its line or without.
func (s Site) at(pattern string) bool {
	return glob(pattern, s.text()) || s.File != "" && glob(pattern, s.File)
}

func (s Site) less(o Site) bool {
	return cmp.Or(cmp.Compare(s.File, o.File), cmp.Compare(s.Line, o.Line),
		cmp.Compare(s.Class, o.Class), cmp.Compare(s.Function, o.Function)) < 0
}

func (r *Rule) confidence(vars map[string]any, unknowns float64) float64 {
	c := r.score.base + r.score.perUnknown*unknowns
	for _, p := range r.score.plus {
		if ok, err := p.if_.truth(vars); err == nil && ok {
			c += p.add
		}
	}
	// Hundredths are as much as scores can tell apart.
	return min(1, max(0, math.Round(c*100)/100))
}

func (r *Rule) evidence(vars map[string]any, f *Finding) []Evidence {
	var out []Evidence
	if steps, ok := vars["chain.steps"].(int64); ok && steps > 0 && r.usesChain() {
		e := Evidence{What: fmt.Sprintf("%v grew one block", vars["chain.symbol"]), N: int(steps)}
		from, _ := vars["chain.start_bytes"].(int64)
		to, _ := vars["chain.end_bytes"].(int64)
		e.FromBytes, e.ToBytes = uint64(from), uint64(to)
		out = append(out, e)
	}
	return append(out, Evidence{What: "stacks that match", N: f.Matched})
}
