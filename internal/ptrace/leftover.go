package ptrace

import (
	"bytes"
	"encoding/binary"

	"github.com/phpwhy/phpwhy/internal/ptrace/x86"
)

// A tracer that was killed leaves its net in the worker, where it does no harm
// and where the next one finds it: by a mark in the page that the action for
// SIGTRAP points to.

// netMark stands at markAt in the net's page.
const (
	netMark = "phpwhy net 1"
	markAt  = netPageSize - 16
)

// reclaim removes what a killed tracer, and the guard that was killed with it,
// left in the target: breakpoint bytes, the action for SIGTRAP and the page.
// All threads stand still. It is no error to find nothing.
func (s *session) reclaim() error {
	t := s.usable()
	if t == nil {
		return nil
	}
	left, err := s.action(t, nil)
	if err != nil {
		return err
	}
	page, code := s.leftover(left.Handler)
	if page == 0 {
		return nil
	}
	e := &int3{s: s, page: page, at: s.sites(page, code), found: true}
	if err := e.write(s.mem, false); err != nil {
		return err
	}
	whole := true // nobody can be in the page
	for _, o := range s.threads {
		switch {
		case !o.stopped:
			whole = false
		case !o.child:
			if err := e.fetch(o); err != nil && !gone(err) {
				return err
			}
		}
	}
	// Breakpoints hit before the bytes were gone have raised SIGTRAPs that
	// nobody wants any more: ignoring the signal discards them.
	if _, err := s.action(t, &sigaction{Handler: sigIgn}); err != nil {
		return err
	}
	if _, err := s.action(t, &sigaction{}); err != nil || !whole {
		return err
	}
	return s.unmap(t, page)
}

// leftover returns the page of a net that an earlier tracer has left, and what
// is in it; 0 when the handler is none of ours.
func (s *session) leftover(handler uint64) (uint64, []byte) {
	if handler == sigDfl || handler == sigIgn || handler%netPageSize != 0 {
		return 0, nil
	}
	code := make([]byte, netPageSize)
	if _, err := s.mem.ReadAt(code, int64(handler)); err != nil || !bytes.HasPrefix(code[markAt:], []byte(netMark)) {
		return 0, nil
	}
	return handler, code
}

// sites reads the table of an int3 net; that of hwbp has none.
func (s *session) sites(page uint64, code []byte) []site {
	if bytes.HasPrefix(code, hwbpHandler) {
		return nil
	}
	var out []site
	le := binary.LittleEndian
	for at := tableAt; at+16 <= slotsAt; at += 16 {
		addr, slot := le.Uint64(code[at:])-1, le.Uint64(code[at+8:])
		if addr == ^uint64(0) || slot < page+slotsAt || slot > page+netPageSize-slotSize {
			break
		}
		var insn [x86.MaxLen]byte
		n, _ := s.mem.ReadAt(insn[:], int64(addr))
		first := code[slot-page+firstAt]
		if n == 0 || insn[0] != int3Byte && insn[0] != first {
			continue // other code by now; with first in its place a guard has been here
		}
		insn[0] = first
		if in, err := x86.Decode(insn[:n]); err == nil {
			out = append(out, site{addr: addr, insn: in, slot: slot})
		}
	}
	return out
}

// fetch gets a thread out of a net whose breakpoints are gone: out of the
// handler and the copies, and back onto an instruction that was a breakpoint
// when it last looked.
func (e *int3) fetch(t *tracee) error {
	var r userRegs
	if err := getRegs(t.tid, &r); err != nil {
		return err
	}
	if trapPending(t.tid) {
		for i := range e.at {
			if e.at[i].addr+1 == r.Rip {
				r.Rip--
				return setRegs(t.tid, &r)
			}
		}
	}
	return e.leave(t)
}
