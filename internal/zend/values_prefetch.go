package zend

import (
	"errors"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// maxRounds bounds how often a stop asks for memory to follow pointers to
// values: variables, what they point to, behind references, classes, names.
const maxRounds = 8

// recorder is a reader that knows what it has copied already.
type recorder interface {
	remote.Prefetcher
	Recorded(at remote.Addr, n int) bool
}

// PrefetchValues makes r hold everything that Values will read. It is called
// after Prefetch, while the process is stopped: rather than one by one,
// pointers are followed in rounds, each of which asks for all that the one
// before has come upon.
func (th *Thread) PrefetchValues(r remote.Reader, w Want) {
	rec, ok := r.(recorder)
	if !ok || th.rt.Layout.Values.err() != nil {
		return
	}
	g := &gatherer{r: rec, asked: make(map[remote.Region]bool)}
	v := th.frameReader(g, false)
	// What could not be read at once is tried again in the next round, and
	// that alone: frames to be listed, and values.
	type listing struct {
		frame *Frame
		names []string
	}
	var frames []listing
	var values []place
	all := th.Walk(r).Frames
	for i := range all {
		if names, every := w.of(&all[i]); every || len(names) > 0 {
			frames = append(frames, listing{&all[i], names})
		}
	}
	follow := func(p *place) (found bool) {
		before := g.failed
		v.value(p, &raw{})
		return g.failed == before
	}
	found := 0
	for range maxRounds {
		again := values[:0]
		for i := range values {
			if !follow(&values[i]) {
				again = append(again, values[i])
			}
		}
		values = again
		left := frames[:0]
		unknown := make(map[remote.Addr]bool) // functions, in this round
		for _, f := range frames {
			if found >= maxValues {
				break
			}
			if unknown[f.frame.Func] {
				left = append(left, f)
				continue
			}
			before := g.failed
			list, _, _ := v.places(f.frame)
			if g.failed > before {
				v.forget(f.frame.Func) // it was made of a part only
				unknown[f.frame.Func] = true
				left = append(left, f)
				continue
			}
			for i := range list {
				if len(f.names) > 0 && !named(f.names, list[i].name) {
					continue
				}
				if found++; !follow(&list[i]) {
					values = append(values, list[i])
				}
			}
		}
		if frames = left; len(g.missing) == 0 {
			return
		}
		rec.Prefetch(g.missing)
		g.missing = g.missing[:0]
	}
}

// errNotRecorded ends a read that the next round can do.
var errNotRecorded = errors.New("not copied yet")

// gatherer reads what is recorded, and notes what is not.
type gatherer struct {
	r       recorder
	asked   map[remote.Region]bool // in this round or one before, with whatever success
	missing []remote.Region
	failed  int
}

// ReadMemory implements remote.Reader.
func (g *gatherer) ReadMemory(p []byte, at remote.Addr) (int, error) {
	if g.r.Recorded(at, len(p)) {
		return g.r.ReadMemory(p, at)
	}
	g.failed++
	if want := (remote.Region{At: at, Len: len(p)}); !g.asked[want] {
		g.asked[want] = true
		g.missing = append(g.missing, want)
		return 0, errNotRecorded
	}
	// It was asked for in vain; a part of it may be there.
	for n := len(p) / 2; n > 0; n /= 2 {
		if g.r.Recorded(at, n) {
			return g.r.ReadMemory(p[:n], at)
		}
	}
	return 0, errNotRecorded
}
