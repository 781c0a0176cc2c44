package ptrace

import (
	"bytes"
	"encoding/binary"
)

// A tracer that was killed leaves its net in the worker, where it does no harm
// and where the next one finds it: by a mark in the page that the action for
// SIGTRAP points to.

// netMark stands at markAt in the net's page.
const (
	netMark = "phpwhy net 1"
	markAt  = netPageSize - 16
)

// leftover returns the page of a net that an earlier tracer has left, 0 when
// the handler is none of ours. All threads stand still.
func (s *session) leftover(handler uint64) uint64 {
	page := handler &^ (netPageSize - 1)
	if handler == sigDfl || handler == sigIgn || page != handler {
		return 0
	}
	mark := make([]byte, len(netMark))
	if _, err := s.mem.ReadAt(mark, int64(page)+markAt); err != nil || !bytes.Equal(mark, []byte(netMark)) {
		return 0
	}
	return page
}

// repair puts back the code that a leftover net of int3 stands for, and reports
// whether there was one.
func (s *session) repair() bool {
	t := s.usable()
	if t == nil {
		return false
	}
	old, err := s.action(t, nil)
	if err != nil {
		return false
	}
	page := s.leftover(old.Handler)
	code := make([]byte, netPageSize)
	if page == 0 {
		return false
	}
	if _, err := s.mem.ReadAt(code, int64(page)); err != nil {
		return false
	}
	return s.clearBytes(code, page) == nil
}

// clear removes what a leftover net stands for: breakpoint bytes whose guard
// was killed, too, and the page, unless a thread may still be in it.
func (s *session) clear(t *tracee, page uint64) error {
	if page == 0 {
		return nil
	}
	code := make([]byte, netPageSize)
	if _, err := s.mem.ReadAt(code, int64(page)); err != nil {
		return err
	}
	if !bytes.HasPrefix(code, hwbpHandler) {
		if err := s.clearBytes(code, page); err != nil {
			return err
		}
	}
	for _, o := range s.threads {
		var r userRegs
		if !o.stopped || getRegs(o.tid, &r) != nil || r.Rip&^(netPageSize-1) == page {
			return nil
		}
	}
	return s.unmap(t, page)
}

// clearBytes puts the code back that the table of an int3 net names.
func (s *session) clearBytes(code []byte, page uint64) error {
	le := binary.LittleEndian
	for at := tableAt; at+16 <= slotsAt; at += 16 {
		addr, slot := le.Uint64(code[at:]), le.Uint64(code[at+8:])
		if addr == 0 || slot < page+slotsAt || slot > page+netPageSize-slotSize {
			break
		}
		var now [1]byte
		if _, err := s.mem.ReadAt(now[:], int64(addr-1)); err != nil || now[0] != int3Byte {
			continue
		}
		if _, err := s.mem.WriteAt(code[slot-page+firstAt:][:1], int64(addr-1)); err != nil && !gone(err) {
			return err
		}
	}
	return nil
}
