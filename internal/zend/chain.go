package zend

import (
	"encoding/binary"
	"fmt"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

const (
	// maxDelegation bounds how many generators "yield from" each other.
	maxDelegation = 1024
	// maxLinks bounds the execute_data that are gone through, those included
	// that are no frames.
	maxLinks = 4 * MaxFrames
)

// link is one execute_data of the chain that prev_execute_data makes.
type link struct {
	at remote.Addr
	ed []byte // valid until the next link
	// suspended marks a generator that waits for the one it delegates to: it
	// is on PHP's stack, but no execute_ex runs it.
	suspended bool
}

func (k link) word(off uint64) remote.Addr {
	return remote.Addr(binary.LittleEndian.Uint64(k.ed[off:]))
}

// chain hands every execute_data to visit, innermost first, as long as visit
// counts fewer than MaxFrames frames. The error says why it ended early. A
// chain that is a cycle is gone through more than once before that is noticed.
func (th *Thread) chain(r remote.Reader, visit func(link) (frames int, err error)) error {
	return th.chainUpTo(r, maxLinks, visit)
}

// chainUpTo bounds the execute_data that are gone through, too.
func (th *Thread) chainUpTo(r remote.Reader, maxLinks int, visit func(link) (frames int, err error)) error {
	rt, l := th.rt, th.rt.Layout
	cur, err := remote.Pointer(r, th.eg+remote.Addr(l.EGCurrent))
	if err != nil {
		return fmt.Errorf("current_execute_data: %w", err)
	}
	ed := make([]byte, l.EDSize)
	// Brent's algorithm: compare with a mark that moves at powers of two.
	mark, steps, power := remote.Addr(0), 0, 1
	inner := remote.Addr(0)
	for n, links := 0, 0; cur != 0; links++ {
		if n >= MaxFrames || links >= maxLinks {
			return ErrDepth
		}
		if cur == mark {
			return ErrCycle
		}
		if steps == power {
			mark, steps, power = cur, 0, power*2
		}
		steps++
		k, err := rt.link(r, cur, ed)
		if err != nil {
			return err
		}
		prev, fn := k.word(l.EDPrev), k.word(l.EDFunc)
		if fn == 0 {
			if n, err = rt.delegators(r, k, inner, n, visit); err != nil {
				return err
			}
		}
		if inner = cur; fn != 0 {
			if n, err = visit(k); err != nil {
				return err
			}
		}
		cur = prev
	}
	return nil
}

func (rt *Runtime) link(r remote.Reader, at remote.Addr, ed []byte) (link, error) {
	if at%8 != 0 {
		return link{}, fmt.Errorf("%w: %s", ErrWild, at)
	}
	if err := remote.ReadFull(r, ed, at); err != nil {
		return link{}, fmt.Errorf("%w: %w", ErrWild, err)
	}
	return link{at: at, ed: ed}, nil
}

// delegators visits the generators that a placeholder stands for. The engine
// runs only the innermost of the generators that delegate to each other by
// "yield from"; in the place of its caller is execute_fake of the outermost
// one, an execute_data without a function. Backtraces show those in between,
// too (zend_generator_check_placeholder_frame in Zend/zend_generators.c).
// inner is the execute_data in front of the placeholder: the one that runs,
// which has a parent already while it begins to delegate.
func (rt *Runtime) delegators(r remote.Reader, fake link, inner remote.Addr, n int, visit func(link) (int, error)) (int, error) {
	l := rt.Layout
	gen := fake.word(l.EDThis)
	if own, ok := gen.Add(l.GenFake); !ok || own != fake.at {
		return n, nil // a call from C without a frame of its own
	}
	var gens []remote.Addr
	for {
		gens = append(gens, gen)
		if len(gens) > maxDelegation {
			return n, fmt.Errorf("more than %d generators delegate to each other", maxDelegation)
		}
		parent, err := remote.Pointer(r, gen+remote.Addr(l.GenParent))
		if err != nil {
			return n, fmt.Errorf("%w: generator: %w", ErrWild, err)
		}
		if parent == 0 {
			break // it runs itself, and is on the chain already
		}
		above, err := remote.Pointer(r, parent+remote.Addr(l.GenParent))
		if err != nil {
			return n, fmt.Errorf("%w: generator: %w", ErrWild, err)
		}
		if above == 0 {
			break // the parent is the one that runs
		}
		gen = parent
	}
	ed := make([]byte, l.EDSize)
	for i := len(gens) - 1; i >= 0 && n < MaxFrames; i-- {
		at, err := remote.Pointer(r, gens[i]+remote.Addr(l.GenExecuteData))
		if err != nil {
			return n, fmt.Errorf("%w: generator: %w", ErrWild, err)
		}
		if at == 0 || at == inner {
			continue // it has ended, or is on the chain already
		}
		k, err := rt.link(r, at, ed)
		if err != nil {
			return n, err
		}
		if k.suspended = true; k.word(l.EDFunc) == 0 {
			continue
		}
		if n, err = visit(k); err != nil {
			return n, err
		}
	}
	return n, nil
}
