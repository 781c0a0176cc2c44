package rules

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// BenchOptions say how much Bench does.
type BenchOptions struct {
	Stacks int // distinct ones
	Frames int // of each
	Rules  int // the set's, and as many made-up ones as are missing
	Naive  int // stacks on which trying everything is measured
	Seed   uint64
}

// BenchResult is what Bench measured, on one core.
type BenchResult struct {
	Stacks, Frames, Rules, Alternatives, Names int
	// Match is how long all rules took on all stacks, the fastest of some
	// rounds: the index, the automatons, the quorums and the expressions.
	Match time.Duration
	// Intern is how long it takes to turn one stack of frames into numbers,
	// which is done once when an observation is evaluated.
	Intern time.Duration
	// Naive is how long all rules take on one stack when each pattern is tried
	// by backtracking over names.
	Naive time.Duration
	// Of one stack: the alternatives that the index proposes, and the automatons
	// that ran: for those of them of which the stack has all required names, and
	// for PHP patterns where the native ones of their condition match.
	Candidates, Ran float64
	Hits            int // matches of alternatives
	Slowest         []RuleCost
}

// RuleCost is what one rule of the set costs by itself, the rest left out.
type RuleCost struct {
	Rule *Rule
	// PerStack is the time for one stack, Candidates the share of stacks on
	// which the index proposes the rule.
	PerStack   time.Duration
	Candidates float64
}

const (
	// costed is how many stacks a single rule is measured on.
	costed = 20_000
	// rounds are how often all rules are measured: another program's turn on
	// the core is not their cost.
	rounds = 3
	// maxSlowest bounds the rules that are named.
	maxSlowest = 10
)

// Bench measures the rules on made-up stacks, which look like those of a busy
// PHP: a system call, some functions of PHP and its extensions of which few are
// frequent and many rare, the interpreter, and the same frames at the end. It
// reads the clock, other than everything else here.
func (s *Set) Bench(opt BenchOptions) (*BenchResult, error) {
	w := newWorld(opt.Seed)
	all, err := w.fill(s.rules, opt.Rules)
	if err != nil {
		return nil, err
	}
	set := &Set{rules: all, byID: make(map[string]*Rule)}
	for _, r := range all {
		set.byID[r.ID] = r
	}
	set.compiled()
	c := w.corpus(opt.Stacks, opt.Frames)
	res := &BenchResult{Stacks: opt.Stacks, Frames: opt.Frames, Rules: len(all), Names: len(c.lanes[Native].symbols)}
	for _, r := range all {
		res.Alternatives += len(r.alts)
	}
	x, took := set.timed(c)
	for range rounds - 1 {
		_, again := set.timed(c)
		took = min(took, again)
	}
	res.Match = took
	for k := range x.search {
		tried, ran := 0, 0
		for i := range x.search[k].progs {
			tried, ran, res.Hits = tried+x.search[k].tried[i], ran+x.search[k].ran[i], res.Hits+len(x.search[k].hits[i])
		}
		res.Candidates += float64(tried) / float64(opt.Stacks)
		res.Ran += float64(ran) / float64(opt.Stacks)
	}
	few := w.corpus(min(opt.Stacks, costed), opt.Frames)
	for _, r := range s.rules {
		one := only(r)
		one.compiled()
		x, took := one.timed(few)
		cost := RuleCost{Rule: r, PerStack: took / time.Duration(len(few.stops))}
		for k := range x.search {
			for _, n := range x.search[k].tried {
				cost.Candidates += float64(n) / float64(len(few.stops))
			}
		}
		res.Slowest = append(res.Slowest, cost)
	}
	slices.SortStableFunc(res.Slowest, func(a, b RuleCost) int { return cmp.Compare(b.PerStack, a.PerStack) })
	res.Slowest = res.Slowest[:min(len(res.Slowest), maxSlowest)]
	res.baseline(few.frames(costed), opt.Naive, all)
	return res, nil
}

// timed evaluates the conditions of all rules.
func (s *Set) timed(c *corpus) (*evaluation, time.Duration) {
	began := time.Now()
	x := &evaluation{o: c.o, vars: make(map[string]any), c: c, res: &Result{}}
	x.match(s.compiled(), s.rules)
	for _, r := range s.rules {
		r.match.eval(x)
	}
	return x, time.Since(began)
}

// baseline measures, on stacks of frames, what is done to one: interning, and
// trying every pattern.
func (res *BenchResult) baseline(o *Observation, tried int, all []*Rule) {
	began := time.Now()
	intern(o)
	res.Intern = time.Since(began) / time.Duration(max(1, len(o.Stacks)))
	tried = min(tried, len(o.Stacks))
	began = time.Now()
	for i := range tried {
		for _, r := range all {
			for _, a := range r.alts {
				if !a.prg.php {
					naive(a.prg.p, o.Stacks[i].Frames)
				}
			}
		}
	}
	res.Naive = time.Since(began) / time.Duration(max(1, tried))
}

// frames makes Observation's stacks of numbers.
func (c *corpus) frames(n int) *Observation {
	o := &Observation{}
	for i := range min(n, len(c.stops)) {
		fs, _ := c.view(Native, i)
		o.Stacks = append(o.Stacks, Stack{Frames: fs})
	}
	return o
}

// world makes up stacks and rules.
type world struct {
	rnd   *rand.Rand
	names []string // of functions, the frequent first
	zipf  *rand.Zipf
}

// worldNames is how many functions stacks are made of.
const worldNames = 6000

var (
	leaves = strings.Fields(`mmap mremap poll read write recv send futex epoll_wait memcpy munmap madvise
		connect accept open stat lseek fsync flock wait4 clock_nanosleep memset strlen brk close`)
	roots = strings.Fields("execute_ex zend_execute zend_execute_scripts php_execute_script main __libc_start_call_main __libc_start_main_impl _start")
)

func newWorld(seed uint64) *world {
	w := &world{rnd: rand.New(rand.NewPCG(seed, 1))}
	all := slices.Sorted(maps.Keys(shipped()))
	w.rnd.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	w.names = all[:min(len(all), worldNames)]
	w.zipf = rand.NewZipf(w.rnd, 1.2, 8, uint64(len(w.names)-1))
	return w
}

// fill adds made-up rules of the usual shape until there are n.
func (w *world) fill(rules []*Rule, n int) ([]*Rule, error) {
	out := slices.Clone(rules)
	name := func() string { return w.names[w.rnd.IntN(len(w.names))] }
	for i := len(out); i < n; i++ {
		text := fmt.Sprintf(`schema: %s
id: bench.r%d
title: t
severity: low
message: m
match:
  all:
    - in: stops
      share: 0.8
      stack:
        one: |
          leaf %s
          0-8 %s|%s|zend_mm_* unk
          opt %s
          %s
        two: |
          leaf %s
          gap 0-6
          %s
          0-3 %s unk
          %s|%s
    - expr: chain.steps >= 8 && chain.monotonic
`, Schema, i, leaves[w.rnd.IntN(len(leaves))], name(), name(), name(), name(), leaves[w.rnd.IntN(len(leaves))], name(), name(), name(), name())
		r, ps := Parse("bench.yaml", []byte(text))
		if len(ps) > 0 {
			return nil, fmt.Errorf("a made-up rule does not load: %v", ps[0])
		}
		out = append(out, r)
	}
	return out, nil
}

// corpus makes up stacks, as numbers at once: a million of them as frames would
// not fit into memory.
func (w *world) corpus(stacks, frames int) *corpus {
	c := &corpus{o: &Observation{}, stops: make([]int, stacks), samples: make([]int, stacks), allStops: stacks}
	l := &c.lanes[Native]
	l.note("php8.2")
	id := func(name string) uint32 { return l.intern(&Frame{Name: name, Module: "php8.2"}) }
	var leafIDs, rootIDs, nameIDs []uint32
	for _, n := range leaves {
		leafIDs = append(leafIDs, id(n))
	}
	for _, n := range roots {
		rootIDs = append(rootIDs, id(n))
	}
	for _, n := range w.names {
		nameIDs = append(nameIDs, id(n))
	}
	unknown, engine := id(""), rootIDs[0]
	l.seq, l.start = make([]uint32, 0, stacks*frames), make([]int, 1, stacks+1)
	for i := range stacks {
		c.stops[i] = 1
		l.seq = append(l.seq, leafIDs[w.rnd.IntN(len(leafIDs))])
		for j := 1; j < frames-len(rootIDs); j++ {
			switch {
			case j%6 == 0:
				l.seq = append(l.seq, engine)
			case w.rnd.IntN(8) == 0:
				l.seq = append(l.seq, unknown)
			default:
				l.seq = append(l.seq, nameIDs[w.zipf.Uint64()])
			}
		}
		l.seq = append(l.seq, rootIDs[max(0, len(rootIDs)-frames+1):]...)
		l.start = append(l.start, len(l.seq))
	}
	php := &c.lanes[PHP]
	php.start = make([]int, stacks+1)
	return c
}
