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
	type wanted struct {
		frame *Frame
		names []string
	}
	var rest []wanted // frames of which something is missing
	frames := th.Walk(r).Frames
	for i := range frames {
		if names, all := w.of(&frames[i]); all || len(names) > 0 {
			rest = append(rest, wanted{&frames[i], names})
		}
	}
	g := &gatherer{r: rec, asked: make(map[remote.Region]bool)}
	v := th.frameReader(g)
	for range maxRounds {
		left := rest[:0]
		for _, f := range rest {
			before := g.failed
			v.frame(f.frame, f.names)
			if g.failed > before {
				// What was made of a part only must be read again.
				v.forget(f.frame.Func)
				left = append(left, f)
			}
		}
		if rest = left; len(g.missing) == 0 {
			return
		}
		rec.Prefetch(g.missing)
		g.missing = g.missing[:0]
		v.restart()
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
