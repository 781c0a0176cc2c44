package triage

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/rules"
)

// Model sorts what was added so far. set judges each worker over all its looks;
// nil judges nothing. The Builder can be added to afterwards, and the Model stays.
func (b *Builder) Model(set *rules.Set, now time.Time) *Model {
	m := &Model{
		Schema: Schema, From: b.from, To: b.to, Rounds: b.rounds(), Looks: b.looks, Events: b.events,
		Hosts: present(b.hosts), Binaries: present(b.binaries), Sources: present(b.sources), Failures: present(b.failures),
		Findings: []Finding{}, Notes: b.notes(),
	}
	s := sorter{b: b, m: m, index: make([]int, len(b.workers))}
	s.stacks()
	s.workers(set, now)
	s.groups()
	s.waits()
	s.order()
	s.findings()
	s.timeline()
	m.outsiders()
	m.Summary = m.summary()
	return m
}

// sorter makes one Model.
type sorter struct {
	b     *Builder
	m     *Model
	index []int            // from a Builder's worker to the Model's
	from  []int            // and back
	place []int            // from a Builder's stack to the Model's
	facts []map[string]any // of the Model's workers, as rules see them
	found [][]rules.Finding
	// open are the rules that are undetermined of each worker that no rule explains.
	open  [][]undecided
	keys  []string // of the Model's workers: their groups'
	byKey map[string]int
}

func present[T any](s []T) []T { return append(make([]T, 0, len(s)), s...) }

func (b *Builder) notes() []string {
	out := []string{}
	for _, l := range []struct {
		n    int
		what string
	}{
		{b.lost.stacks, "stacks were too many to keep; what was seen with them counts as a look only"},
		{b.lost.workers, "looks are at workers beyond the limit and are left out"},
		{b.lost.events, "older events were not shown to the rules, which see the latest of each worker"},
		{b.lost.ticks, "looks are beyond the timeline's end"},
		{b.lost.failures, "further failures are not listed"},
		{b.lost.repeated, "captures were there already and count once"},
	} {
		if l.n > 0 {
			out = append(out, fmt.Sprintf("%d %s", l.n, l.what))
		}
	}
	return out
}

// stacks puts the merged stacks into the Model, the most frequent first.
func (s *sorter) stacks() {
	all := s.b.stacks.all
	order := make([]int, len(all))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(all[b].count, all[a].count) })
	s.place = make([]int, len(all))
	s.m.Stacks = make([]Stack, len(all))
	for to, from := range order {
		s.place[from] = to
		a := &all[from]
		s.m.Stacks[to] = Stack{Count: a.count, Frames: a.Frames, Places: a.places, End: a.End, Error: a.Error, Seen: []Seen{}}
	}
}

func (s *sorter) workers(set *rules.Set, now time.Time) {
	b := s.b
	for i := range b.workers {
		if b.workers[i].Looks > 0 || len(b.workers[i].counts) > 0 {
			s.from = append(s.from, i)
		}
	}
	slices.SortStableFunc(s.from, func(x, y int) int {
		v, w := b.workers[x], b.workers[y]
		return cmp.Or(cmp.Compare(v.Host, w.Host), cmp.Compare(v.PID, w.PID), cmp.Compare(v.Start, w.Start))
	})
	s.m.Workers = make([]Worker, len(s.from))
	s.pools()
	s.judge(set, now)
	for to, from := range s.from {
		s.index[from] = to
		w := b.workers[from]
		out := w.Worker
		out.Facts, out.Findings = s.facts[to], []WorkerFinding{}
		for _, f := range s.found[to] {
			out.Findings = append(out.Findings, WorkerFinding{Rule: f.Rule, Confidence: f.Confidence, Message: f.Message, Site: site(f.Site)})
		}
		if out.Facts == nil {
			out.Facts = map[string]any{}
		}
		if st := w.usual(b); st >= 0 {
			out.Stack = s.place[st]
			out.Site, _ = siteOf(b.stacks.all[st].Frames)
		}
		s.m.Workers[to] = out
		for k, n := range w.counts {
			st := &s.m.Stacks[s.place[k.stack]]
			st.Seen = append(st.Seen, Seen{Worker: to, Kind: k.kind, N: n})
		}
	}
	for i := range s.m.Stacks {
		slices.SortFunc(s.m.Stacks[i].Seen, func(a, b Seen) int {
			return cmp.Or(cmp.Compare(a.Worker, b.Worker), cmp.Compare(a.Kind, b.Kind))
		})
	}
}

// judge has the rules look at all workers, on all processors: one takes half a
// millisecond.
func (s *sorter) judge(set *rules.Set, now time.Time) {
	s.found, s.open = make([][]rules.Finding, len(s.from)), make([][]undecided, len(s.from))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range runtime.NumCPU() {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(s.from)); i = next.Add(1) - 1 {
				said := judge(s.b, s.b.workers[s.from[i]], s.facts[i], set, now)
				if s.found[i] = said.Findings; len(s.found[i]) == 0 {
					s.open[i] = likely(said.Results)
				}
			}
		})
	}
	wg.Wait()
}

// usual is the stack that a worker was seen with most; one with PHP code goes
// before others.
func (w *worker) usual(b *Builder) int {
	best, most, php := -1, 0, false
	for k, n := range w.counts {
		n += w.counts[seenKey{k.stack, other(k.kind)}]
		p := b.stacks.all[k.stack].php
		if best < 0 || p && !php || p == php && (n > most || n == most && k.stack < best) {
			best, most, php = k.stack, n, p
		}
	}
	return best
}

func other(k capture.EventKind) capture.EventKind {
	if k == capture.Stop {
		return capture.Sample
	}
	return capture.Stop
}

func site(s *rules.Site) Site {
	if s == nil {
		return Site{}
	}
	return Site{Function: s.Function, Class: s.Class, File: s.File, Line: s.Line}
}

// judge asks the rules about one worker.
func judge(b *Builder, w *worker, facts map[string]any, set *rules.Set, now time.Time) rules.Report {
	if set == nil || len(w.events) == 0 {
		return rules.Report{}
	}
	c := b.one(w)
	c.Facts = facts
	said, err := set.Evaluate(capture.Observe(c), rules.Options{Now: now})
	if err != nil {
		return rules.Report{} // an event without a stack, which add does not let pass
	}
	return said
}

// One is what was seen of a worker of a Model that this Builder made, over all its
// looks, as if it had been observed alone.
func (b *Builder) One(m *Model, worker int) *capture.Capture {
	of := &m.Workers[worker]
	for _, w := range b.workers {
		if w.Host == of.Host && w.PID == of.PID && w.Worker.Start == of.Start {
			return b.one(w)
		}
	}
	return nil
}

func (b *Builder) one(w *worker) *capture.Capture {
	c := &capture.Capture{Target: w.Target, Facts: w.Facts,
		Observation: capture.Observation{Engine: w.engine, Stops: w.Stops, Samples: w.Samples, Breakpoints: w.breaks, DurationMS: w.lastAt.Milliseconds(),
			PausedUSTotal: w.PausedUS, PausedUSMax: w.Paused}}
	c.Target.Request = w.Request
	local := make(map[int]int)
	for i := range w.events {
		e := w.events[(w.next+i)%len(w.events)].Event
		id, ok := local[e.Stack]
		if !ok {
			id = len(c.Stacks)
			local[e.Stack] = id
			c.Stacks = append(c.Stacks, b.stacks.all[e.Stack].Stack)
		}
		e.Stack = id
		c.Events = append(c.Events, e)
	}
	return c
}

// groups puts every worker into one.
func (s *sorter) groups() {
	s.byKey = make(map[string]int)
	s.keys = make([]string, len(s.m.Workers))
	for i := range s.m.Workers {
		k, g := s.groupOf(i)
		s.keys[i] = k
		at, ok := s.byKey[k]
		if !ok {
			at = len(s.m.Groups)
			s.byKey[k] = at
			s.m.Groups = append(s.m.Groups, g)
		}
		s.m.Groups[at].Workers = append(s.m.Groups[at].Workers, i)
		s.m.Groups[at].Looks += s.m.Workers[i].Looks
		s.m.Workers[i].Group = at
	}
	for i := range s.m.Groups {
		s.fill(&s.m.Groups[i])
		s.lacking(&s.m.Groups[i])
	}
}

// groupOf names a worker's group and describes it.
func (s *sorter) groupOf(i int) (string, Group) {
	w := &s.m.Workers[i]
	if f := leading(s.found[i]); f != nil {
		at := site(f.Site)
		// A healthy state is one wherever the worker is.
		if f.Kind == rules.Benign {
			at = Site{}
		}
		return fmt.Sprintf("rule\x00%s\x00%s\x00%s\x00%s\x00%d", f.Rule, at.Class, at.Function, at.File, at.Line), Group{
			Title: f.Title, Rule: f.Rule, Kind: string(f.Kind), Severity: string(f.Severity), Message: f.Message, Fix: f.Fix, Site: at}
	}
	if w.Stack < 0 {
		return "nothing", Group{Title: "nothing was seen of them"}
	}
	st := &s.m.Stacks[w.Stack]
	return "stack\x00" + canonical(st.Frames, running(w.Facts)), Group{Title: what(st.Frames, running(w.Facts)), Site: w.Site}
}

// leading is the finding that stands for a worker: the first cause, else the first.
func leading(fs []rules.Finding) *rules.Finding {
	for i := range fs {
		if fs[i].Kind == rules.Cause {
			return &fs[i]
		}
	}
	if len(fs) > 0 {
		return &fs[0]
	}
	return nil
}

// fill counts what a group's workers have in common.
func (s *sorter) fill(g *Group) {
	counts := make(map[int]int)
	uris := make(map[[2]string]int)
	var ages []int64
	for _, i := range g.Workers {
		w := s.b.workers[s.from[i]]
		for k, n := range w.counts {
			counts[s.place[k.stack]] += n
		}
		if q := w.Request; q != nil {
			uris[[2]string{q.Method, path(q.URI)}]++
			if age, known := q.Age(); known {
				ages = append(ages, age)
			}
		}
	}
	g.Stacks = []int{}
	for st := range counts {
		g.Stacks = append(g.Stacks, st)
	}
	php := func(st int) int {
		if at, _ := siteOf(s.m.Stacks[st].Frames); at != (Site{}) {
			return 0
		}
		return 1
	}
	slices.SortFunc(g.Stacks, func(a, b int) int {
		return cmp.Or(cmp.Compare(php(a), php(b)), cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	g.URIs, g.Waits = []URICount{}, []Wait{}
	for u, n := range uris {
		g.URIs = append(g.URIs, URICount{Method: u[0], URI: u[1], N: n})
	}
	slices.SortFunc(g.URIs, func(a, b URICount) int { return cmp.Or(cmp.Compare(b.N, a.N), cmp.Compare(a.URI, b.URI)) })
	if len(ages) > 0 {
		slices.Sort(ages)
		g.Ages = &Ages{Min: ages[0], Median: ages[len(ages)/2], Max: ages[len(ages)-1]}
	}
}

// order puts what hurts most first: causes by the number of workers, then waits
// that no rule explains, then what nothing explains, the healthy last.
func (s *sorter) order() {
	perm := make([]int, len(s.m.Groups))
	for i := range perm {
		perm[i] = i
	}
	slices.SortStableFunc(perm, func(a, b int) int {
		x, y := &s.m.Groups[a], &s.m.Groups[b]
		return cmp.Or(cmp.Compare(x.Rank(), y.Rank()), cmp.Compare(len(y.Workers), len(x.Workers)),
			cmp.Compare(severity(y.Severity), severity(x.Severity)), cmp.Compare(y.Looks, x.Looks))
	})
	groups := make([]Group, len(perm))
	for to, from := range perm {
		groups[to] = s.m.Groups[from]
		for _, w := range groups[to].Workers {
			s.m.Workers[w].Group = to
		}
	}
	s.m.Groups = groups
	for k, from := range s.byKey {
		s.byKey[k] = slices.Index(perm, from)
	}
}

func severity(s string) int {
	return slices.Index([]string{"", "info", "low", "medium", "high", "critical"}, s)
}

// findings lists the rules that match, by the number of workers.
func (s *sorter) findings() {
	by := make(map[string]int)
	for i, fs := range s.found {
		for _, f := range fs {
			at, ok := by[f.Rule]
			if !ok {
				at = len(s.m.Findings)
				by[f.Rule] = at
				s.m.Findings = append(s.m.Findings, Finding{Rule: f.Rule, Kind: string(f.Kind), Severity: string(f.Severity), Title: f.Title, Fix: f.Fix})
			}
			g := &s.m.Findings[at]
			g.Workers = append(g.Workers, i)
			if f.Confidence > g.Confidence {
				g.Confidence, g.Message = f.Confidence, f.Message
			}
		}
	}
	slices.SortStableFunc(s.m.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(len(b.Workers), len(a.Workers)), cmp.Compare(a.Rule, b.Rule))
	})
}

// timeline counts, round by round, how many workers did what each group does. A
// look is known by its stack; one that no group stands for counts for its
// worker's own group.
func (s *sorter) timeline() {
	byStack := make(map[int]int)
	for g := range s.m.Groups {
		for _, st := range s.m.Groups[g].Stacks {
			if _, ok := byStack[st]; !ok {
				byStack[st] = g
			}
		}
	}
	at := make(map[*tick]int, len(s.b.ticks))
	s.m.Timeline = make([]Tick, len(s.b.ticks))
	for i, t := range s.b.ticks {
		at[t] = i
		s.m.Timeline[i] = Tick{Host: t.host, Round: t.round, At: t.at, Workers: t.workers, Groups: make([]int, len(s.m.Groups))}
	}
	for to, from := range s.from {
		own := s.m.Workers[to].Group
		for _, l := range s.b.workers[from].looks {
			g := own
			if l.stack >= 0 && !slices.Contains(s.m.Groups[own].Stacks[:min(len(s.m.Groups[own].Stacks), 64)], s.place[l.stack]) {
				if other, ok := byStack[s.place[l.stack]]; ok {
					g = other
				}
			}
			s.m.Timeline[at[l.tick]].Groups[g]++
		}
	}
	slices.SortStableFunc(s.m.Timeline, func(a, b Tick) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), a.At.Compare(b.At), cmp.Compare(a.Round, b.Round))
	})
}

// running reports whether a worker was on a processor or wanted to be, "" and
// false when that is unknown.
func running(facts map[string]any) bool {
	if st, ok := facts["proc.state"].(string); ok {
		return st == "R"
	}
	return false
}

// phpFrames reports whether a stack has any.
func phpFrames(fs []stack.Frame) bool {
	return slices.ContainsFunc(fs, func(f stack.Frame) bool { return f.Kind == stack.PHP })
}
