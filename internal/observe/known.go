package observe

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/ptrace"
	"github.com/phpwhy/phpwhy/symbolize"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

const (
	// maxPlaces bounds the places whose stacks are remembered, and maxAtPlace
	// the stacks of one.
	maxPlaces  = 256
	maxAtPlace = 32
	// maxGathered bounds what is read at a place to recognise its stacks, in
	// bytes.
	maxGathered = 256 << 10
	// maxMisses is how often a place may disappoint, and more often than not,
	// before it is given up.
	maxMisses = 64
)

// known are the stacks that can be told while the worker stands still, on the
// tracer's thread. The reader's goroutine teaches them.
type known struct {
	groups map[place]*group

	news    atomic.Bool
	mu      sync.Mutex
	learned []*recipe // not yet taken over
}

// group are the recipes of one place, and one read that serves them all.
type group struct {
	recipes []*recipe
	gather  *proc.Gather
	img     *symbolize.Image
	hits    int
	misses  int
	given   bool // up
}

// at is the place of a breakpoint's stop.
func at(st *ptrace.Stop) place {
	return place{tid: st.TID, bp: st.Breakpoint, pc: st.Regs.PC(), sp: st.Regs.SP(), tls: st.Regs.TLS}
}

// teach hands over a recipe. It is called by the reader.
func (k *known) teach(r *recipe) {
	k.mu.Lock()
	k.learned = append(k.learned, r)
	k.mu.Unlock()
	k.news.Store(true)
}

// take takes over what was taught. A new image is new modules: what was known
// of the old one does not count.
func (k *known) take() {
	k.news.Store(false)
	k.mu.Lock()
	learned := k.learned
	k.learned = nil
	k.mu.Unlock()
	for _, r := range learned {
		g := k.groups[r.at]
		if g == nil {
			if len(k.groups) == maxPlaces {
				continue
			}
			if k.groups == nil {
				k.groups = make(map[place]*group)
			}
			g = &group{img: r.img}
			k.groups[r.at] = g
		}
		if g.img != r.img {
			*g = group{img: r.img}
		}
		if !g.given && len(g.recipes) < maxAtPlace {
			g.add(r)
		}
	}
}

// find tells which known stack a thread stands in.
func (k *known) find(mem *proc.Memory, img *symbolize.Image, p place, regs *remote.Regs) *recipe {
	if k.news.Load() {
		k.take()
	}
	g := k.groups[p]
	if g == nil || g.given || g.gather == nil || g.img != img {
		return nil
	}
	if b, ok := g.gather.Read(mem); ok {
		for i, r := range g.recipes {
			if r.inGathered(regs, b) {
				g.hits++
				if i > 0 { // what was met last is tried first
					g.recipes[i-1], g.recipes[i] = r, g.recipes[i-1]
				}
				return r
			}
		}
	}
	if g.misses++; g.misses > maxMisses && g.misses > g.hits {
		*g = group{img: g.img, given: true}
	}
	return nil
}

// add makes room for a recipe in what is gathered; one that would make it too
// large is left out.
func (g *group) add(r *recipe) {
	recipes := append(slices.Clip(g.recipes), r)
	var regions []remote.Region
	for _, r := range recipes {
		for i := range r.words {
			regions = append(regions, remote.Region{At: r.words[i].at, Len: len(r.words[i].want)})
		}
		for i := range r.not {
			if r.not[i].reg < 0 {
				regions = append(regions, remote.Region{At: r.not[i].at, Len: 8})
			}
		}
	}
	regions, total := merge(regions)
	if total > maxGathered || len(regions) > proc.MaxGather {
		return
	}
	g.recipes, g.gather = recipes, proc.NewGather(regions)
	starts := make([]int, len(regions))
	for i, n := 0, 0; i < len(regions); i++ {
		starts[i] = n
		n += regions[i].Len
	}
	offset := func(at remote.Addr) int {
		i, found := slices.BinarySearchFunc(regions, at, func(r remote.Region, at remote.Addr) int { return cmp.Compare(r.At, at) })
		if !found {
			i--
		}
		return starts[i] + int(at-regions[i].At)
	}
	for _, r := range recipes {
		for i := range r.words {
			r.words[i].off = offset(r.words[i].at)
		}
		for i := range r.not {
			if r.not[i].reg < 0 {
				r.not[i].off = offset(r.not[i].at)
			}
		}
	}
}

// merge sorts regions and joins those of one page, and those that touch: each
// further region costs the kernel more than the bytes in between.
func merge(regions []remote.Region) (out []remote.Region, total int) {
	slices.SortFunc(regions, func(a, b remote.Region) int { return cmp.Compare(a.At, b.At) })
	const page = 4096
	out = regions[:0]
	for _, r := range regions {
		if n := len(out); n > 0 {
			last := &out[n-1]
			end := last.At + remote.Addr(last.Len)
			if r.At <= end || (end-1)/page == r.At/page {
				last.Len = max(last.Len, int(r.At-last.At)+r.Len)
				continue
			}
		}
		out = append(out, r)
	}
	for _, r := range out {
		total += r.Len
	}
	return out, total
}
