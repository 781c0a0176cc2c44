package triage

import (
	"cmp"
	"maps"
	"strings"
)

// pool are workers that do the same work: those of a php-fpm pool, of anything else
// those of one program, on one host. Two pools of one name, as two containers may
// have them, are one here: captures don't tell containers apart.
type pool struct {
	host      int
	name, exe string
}

func poolOf(w *worker) pool {
	name := w.Pool
	if rest, ok := strings.CutPrefix(w.Target.Cmdline, "php-fpm: pool "); ok {
		name = cmp.Or(name, strings.TrimSpace(rest))
	}
	return pool{w.Host, name, w.Target.Exe}
}

// moment is one round of one collection: of two collections on a host both have
// a first round.
type moment struct {
	tick  *tick
	began int64
}

// pools gives each worker, beside the facts of its last look, those about its pool
// in the round of that look: how many workers were looked at, and how many of them,
// itself among them, have the same canonical stack. A worker that was looked at
// alone tells nothing of its pool, and neither do captures that don't name their
// host: they may be of several.
func (s *sorter) pools() {
	type in struct {
		pool
		moment
	}
	type doing struct {
		in
		stack int
	}
	wanted, all := make(map[in]bool), make(map[moment]int)
	for _, from := range s.from {
		if w := s.b.workers[from]; s.b.hosts[w.Host] != (Host{}) && len(w.looks) > 0 {
			wanted[in{poolOf(w), w.looks[len(w.looks)-1].moment}] = true
		}
	}
	workers, same := make(map[in]int), make(map[doing]int)
	stacks, number := make([]int, len(s.from)), s.numberer()
	for to, from := range s.from {
		w := s.b.workers[from]
		stacks[to] = number(w)
		of, seen := poolOf(w), make(map[moment]bool)
		for _, l := range w.looks {
			k := in{of, l.moment}
			if seen[l.moment] {
				continue
			}
			seen[l.moment] = true
			all[l.moment]++
			if wanted[k] {
				workers[k]++
				same[doing{k, stacks[to]}]++
			}
		}
	}
	s.facts = make([]map[string]any, len(s.from))
	for to, from := range s.from {
		w := s.b.workers[from]
		s.facts[to] = w.Facts
		if len(w.looks) == 0 {
			continue
		}
		k := in{poolOf(w), w.looks[len(w.looks)-1].moment}
		if !wanted[k] || all[k.moment] < 2 {
			continue
		}
		facts := maps.Clone(w.Facts)
		if facts == nil {
			facts = make(map[string]any)
		}
		facts["pool.workers"] = int64(workers[k])
		if stacks[to] >= 0 {
			facts["pool.same_stack"] = int64(same[doing{k, stacks[to]}])
		}
		s.facts[to] = facts
	}
}

// numberer numbers the canonical stacks that workers were seen with most, as groups
// compare them; -1 is none. Workers that do the same share most of the work.
func (s *sorter) numberer() func(*worker) int {
	type seen struct {
		stack   int
		running bool
	}
	known, numbers := make(map[seen]int), make(map[string]int)
	return func(w *worker) int {
		k := seen{w.usual(s.b), running(w.Facts)}
		if k.stack < 0 {
			return -1
		}
		if n, ok := known[k]; ok {
			return n
		}
		text := canonical(s.b.stacks.all[k.stack].Frames, k.running)
		n, ok := numbers[text]
		if !ok {
			n = len(numbers)
			numbers[text] = n
		}
		known[k] = n
		return n
	}
}
