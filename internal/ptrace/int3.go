package ptrace

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
)

// Where things are in the net's page, in bytes. The handler is at its start.
const (
	restorerAt = 48
	tableAt    = 64 // entries of 16 bytes, ended by 0
)

// int3 is the engine that writes a breakpoint instruction over a function's
// first; the name is the one of x86.
type int3 struct {
	s     *session
	bps   []Breakpoint
	at    []site
	si    trapInfo
	guard *guard // nil without
	want  bool   // a guard
	page  uint64
	armed bool // bytes may be in the target's memory
	found bool // left by a tracer that was killed: the net's handler may have run
}

// site is one breakpoint's place in the code.
type site struct {
	addr uint64
	insn *insn
	slot uint64
}

func newInt3(s *session, bps []Breakpoint, guard bool) *int3 {
	return &int3{s: s, bps: bps, want: guard}
}

func (e *int3) prepare() error {
	if len(e.bps) > maxInt3 {
		return fmt.Errorf("%w: %d, at most %d", ErrTooMany, len(e.bps), maxInt3)
	}
	if err := placed(e.bps); err != nil || !e.want {
		return err
	}
	var err error
	e.guard, err = startGuard()
	return err
}

func (e *int3) arm() error {
	// First of all, because it also removes an earlier tracer's breakpoints.
	if own, err := e.s.ownAction(); err != nil || own {
		return cmp.Or(err, ErrOwnAction)
	}
	for _, bp := range e.bps {
		var code [maxInsn]byte
		n, err := e.s.mem.ReadAt(code[:], int64(bp.Addr))
		if n == 0 {
			return fmt.Errorf("read the code of %s at %s: %w", bp.Name, bp.Addr, err)
		}
		if bytes.HasPrefix(code[:n], breakCode) {
			return fmt.Errorf("%s at %s: %w: there is a breakpoint already", bp.Name, bp.Addr, ErrTraced)
		}
		in, err := decodeInsn(code[:n])
		if err == nil {
			_, err = slotFor(in, uint64(bp.Addr))
		}
		if err != nil {
			return fmt.Errorf("%s at %s: %w", bp.Name, bp.Addr, err)
		}
		e.at = append(e.at, site{addr: uint64(bp.Addr), insn: in})
	}
	if err := e.s.spread(e.layout); err != nil {
		return err
	}
	expose := e.s.expose
	if e.guard != nil {
		expose = func() error { return e.guard.expose(e.s, e.undo) }
	}
	if err := expose(); err != nil {
		return err
	}
	return e.unpause()
}

// layout fills the net's page: the handler, its way back, the table of
// addresses, and the copies of the instructions.
func (e *int3) layout(page uint64) (code []byte, handler, restorer uint64) {
	e.page = page
	code = make([]byte, netPageSize)
	copy(code, lookupHandler)
	copy(code[restorerAt:], sigreturn)
	for i := range e.at {
		t := &e.at[i]
		t.slot = page + slotsAt + uint64(i)*slotSize
		binary.LittleEndian.PutUint64(code[tableAt+i*16:], t.addr+breakAfter)
		binary.LittleEndian.PutUint64(code[tableAt+i*16+8:], t.slot)
		slot, _ := slotFor(t.insn, t.addr) // checked by arm
		copy(code[slotsAt+i*slotSize:], slot)
		copy(code[slotsAt+i*slotSize+firstAt:], t.insn.Bytes()[:len(breakCode)])
	}
	return code, page, page + restorerAt
}

// undo is what the guard needs to know.
func (e *int3) undo() undo {
	u := e.s.undo()
	for _, t := range e.at {
		u.Sites = append(u.Sites, undoSite{Addr: t.addr, Slot: t.slot, Code: t.insn.Bytes()})
	}
	return u
}

func (e *int3) write(mem *os.File, set bool) error {
	var errs error
	for _, t := range e.at {
		b := breakCode
		if !set {
			b = t.insn.Bytes()[:len(breakCode)]
		}
		if _, err := mem.WriteAt(b, int64(t.addr)); err != nil {
			errs = errors.Join(errs, fmt.Errorf("write the code at %#x: %w", t.addr, err))
		}
	}
	return errs
}

func (e *int3) pause() error { return e.patch(false) }

func (e *int3) unpause() error {
	e.armed = true
	return e.patch(true)
}

func (e *int3) disarm() error {
	var errs error
	if e.armed {
		errs = e.write(e.s.mem, false)
		e.armed = false
	}
	for _, t := range e.s.threads {
		if t.stopped && !t.child {
			errs = errors.Join(errs, ignoreGone(e.leave(t)))
		}
	}
	return errors.Join(errs, e.s.cover(), e.s.unspread())
}

// lost tells the guard that there is nothing left to remove.
func (e *int3) lost() {
	e.armed = false
	if e.guard != nil {
		e.guard.dismiss()
		e.guard = nil
	}
}

// maxHandlerSteps bounds the instructions the net's handler still has to run:
// seven per table entry, and the way back.
const maxHandlerSteps = 16 + 7*maxInt3

// leave gets a stopped thread out of the net's page: it steps through the
// handler, which runs when no tracer was there to take the signal, and moves
// from a slot back to the code proper.
func (e *int3) leave(t *tracee) error {
	var r userRegs
	sig := 0
	for range maxHandlerSteps {
		if err := getRegs(t.tid, &r); err != nil {
			return err
		}
		if pc := *pcOf(&r); pc < e.page || pc >= e.page+tableAt {
			break
		}
		if err := step(t.tid, sig); err != nil {
			return err
		}
		ev, err := e.s.nextOf(t)
		if err != nil {
			return err
		}
		sig = ev.unblockable()
	}
	if e.slotsInUse() {
		if err := e.leaveFrames(t, stackOf(&r)); err != nil {
			return err
		}
	}
	was := *pcOf(&r)
	if e.original(&r); *pcOf(&r) == was {
		return nil
	}
	return setRegs(t.tid, &r)
}

// slotsInUse reports whether threads may have been sent to the copies of the
// instructions: by pass when one can't be emulated, or by the net's handler.
func (e *int3) slotsInUse() bool {
	return e.found || slices.ContainsFunc(e.at, func(t site) bool { return !t.insn.Emulated() })
}

// maxStackScan bounds the part of a stack that is searched for signal frames.
const maxStackScan = 8 << 20

// leaveFrames does for the frames of signal handlers what leave does for the
// thread: a signal that came at a copy has its address in the frame, to
// return to. Nothing else has a reason to point there.
func (e *int3) leaveFrames(t *tracee, sp uint64) error {
	end, err := mappingEnd(e.s.pid, sp)
	if err != nil {
		return err
	}
	sp &^= 7
	buf := make([]byte, 64<<10)
	for at := sp; at < end && at-sp < maxStackScan; at += uint64(len(buf)) {
		n, err := e.s.mem.ReadAt(buf[:min(uint64(len(buf)), end-at)], int64(at))
		if n == 0 {
			return err
		}
		for i := 0; i+8 <= n; i += 8 {
			var r userRegs
			pc := pcOf(&r)
			if *pc = binary.LittleEndian.Uint64(buf[i:]); *pc < e.page+slotsAt || *pc >= e.page+netPageSize {
				continue
			}
			if e.original(&r); *pc >= e.page && *pc < e.page+netPageSize {
				continue
			}
			if _, err := e.s.mem.WriteAt(binary.LittleEndian.AppendUint64(nil, *pc), int64(at)+int64(i)); err != nil {
				return err
			}
		}
	}
	return nil
}

// original translates a program counter in a slot to where the thread would be
// without one.
func (e *int3) original(r *userRegs) {
	for i := range e.at {
		t := &e.at[i]
		if pc := *pcOf(r); pc >= t.slot && pc < t.slot+slotSize {
			*pcOf(r) = unslot(t.insn, t.addr, pc-t.slot)
			return
		}
	}
}

// addThread tells the guard of a thread that has an exposed one's mask.
func (e *int3) addThread(t *tracee) error {
	if t.exposed == 0 || !e.armed || e.guard == nil {
		return nil
	}
	return e.guard.update(e.undo())
}

func (e *int3) dropThread(*tracee) {}
func (e *int3) inMemory() bool     { return true }

// forked restores the code in a child that has a copy of the memory.
func (e *int3) forked(t *tracee) error {
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", t.tid), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = e.write(mem, false)
	err = errors.Join(err, ignoreGone(e.leave(t)))
	return errors.Join(err, mem.Close())
}

func (e *int3) hit(t *tracee, r *userRegs) (int, error) {
	if err := getSigInfo(t.tid, &e.si); err != nil {
		return notOurs, err
	}
	if e.si.Code != breakSI {
		return notOurs, nil
	}
	if err := getRegs(t.tid, r); err != nil {
		return notOurs, err
	}
	for i := range e.at {
		if e.at[i].addr+breakAfter == *pcOf(r) {
			*pcOf(r) = e.at[i].addr
			return i, e.mend(t)
		}
	}
	return notOurs, nil
}

// mend keeps the net, and tells the guard of a thread that is exposed by that.
func (e *int3) mend(t *tracee) error {
	if e.s.net == nil {
		return nil
	}
	was := t.exposed
	if err := e.s.net.mend(e.s, t); err != nil || t.exposed == was || e.guard == nil {
		return err
	}
	return e.guard.update(e.undo())
}

func (e *int3) pass(t *tracee, bp int, r *userRegs) error {
	in := &e.at[bp]
	if !in.insn.Emulated() {
		*pcOf(r) = in.slot
		return setRegs(t.tid, r)
	}
	err := emulate(in.insn, r, func(at, v uint64) error {
		return poke(t.tid, at, v)
	})
	if err != nil {
		// The stack can't be written: let the instruction itself say so.
		*pcOf(r) = in.slot
	}
	return setRegs(t.tid, r)
}

func (e *int3) rewind(t *tracee, r *userRegs) error { return setRegs(t.tid, r) }
