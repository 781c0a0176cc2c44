package ptrace

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The net is what a breakpoint's SIGTRAP falls into when no tracer is there to
// take it. A tracer that is killed leaves a time, however short, in which
// breakpoints are armed and nobody traces: the thread that holds the perf
// events ends after the one that traces, and a SIGTRAP that was raised but
// not yet waited for is delivered. SIGTRAP's default action kills the worker.
//
// So for the time of the observation the action is a handler of a few
// instructions, in a page that the worker is made to map. An ignored SIGTRAP
// would not do: an exception forces its signal, and forcing an ignored one
// kills (kernel/signal.c, force_sig_info_to_task).
//
// hwbp: the handler sets the resume flag, and the instruction runs.
//
// int3: it looks the program counter up in a table and moves the thread to a
// copy of the instruction that the breakpoint replaced, followed by a jump
// back.
//
// After the tracer's death hwbp's breakpoints are gone with its files, and a
// guard removes int3's. An action other than the default is the worker's own;
// hwbp leaves it alone, int3 is refused.

// sigaction is struct sigaction as the kernel keeps it.
type sigaction struct {
	Handler, Flags, Restorer, Mask uint64
}

const (
	sigDfl = 0
	sigIgn = 1

	saSiginfo   = 0x4
	saRestart   = 0x10000000
	saNoCldStop = 1
	saRestorer  = 0x04000000
	saOnStack   = 0x08000000
	saNoDefer   = 0x40000000

	sigactionSize = 32
	sigsetSize    = 8
	netPageSize   = 4096
)

// ErrOwnAction says that the target handles SIGTRAP itself.
var ErrOwnAction = errors.New("it has a SIGTRAP handler of its own")

// net describes what was changed in the target, enough to undo it; the guard
// gets a copy.
type net struct {
	Page uint64 // 0 when there is none
	off  bool   // the action has been put back, or was never changed
	act  sigaction
}

// layout fills the page that the target gets.
type layout func(page uint64) (code []byte, handler, restorer uint64)

// spread installs the net while the target runs. A target with an action of its
// own is an ErrOwnAction, and is not changed.
func (s *session) spread(fill layout) error {
	if err := s.borrow(); err != nil {
		return err
	}
	s.net = &net{off: true}
	if own, err := s.ownAction(); err != nil || own {
		return cmp.Or(err, ErrOwnAction)
	}
	page, err := s.mapPage()
	if err != nil {
		return fmt.Errorf("map a page in it: %w", err)
	}
	n := &net{off: true, Page: page}
	s.net = n
	code, handler, restorer := fill(n.Page)
	copy(code[markAt:], netMark)
	if _, err := s.mem.WriteAt(code, int64(n.Page)); err != nil {
		return fmt.Errorf("write to that page: %w", err)
	}
	n.off = false
	n.act = sigaction{Handler: handler, Restorer: restorer, Flags: saSiginfo | saRestorer | saOnStack | saNoDefer,
		// Nothing may run on top of the handler: its page goes away.
		Mask: ^uint64(trapMask)}
	t, err := s.have(setAction(&n.act))
	if err != nil {
		return err
	}
	return s.await(t, "its action for SIGTRAP to be set", s.catches)
}

// ownAction reports whether the target does not have the default action for
// SIGTRAP. What an earlier tracer left is removed first.
func (s *session) ownAction() (bool, error) {
	ignored, err := s.signalIn("SigIgn")
	if err != nil || ignored {
		return ignored, err
	}
	caught, err := s.catches()
	if err != nil || !caught {
		return caught, err
	}
	late := s.stopAll()
	err = s.reclaim()
	if !s.held {
		err = errors.Join(err, s.resumeAll())
	}
	s.hasStood()
	if err != nil {
		return true, errors.Join(err, late)
	}
	return s.catches()
}

// catches reports whether the target has a handler for SIGTRAP.
func (s *session) catches() (bool, error) { return s.signalIn("SigCgt") }

func (s *session) signalIn(set string) (bool, error) {
	v := statusField(s.pid, set)
	if v == "" {
		return false, unix.ESRCH
	}
	m, err := strconv.ParseUint(v, 16, 64)
	return m&(1<<(uint(unix.SIGTRAP)-1)) != 0, err
}

// mapPage has the target map a page far away from everything else, so that
// nothing that grows will meet it.
func (s *session) mapPage() (uint64, error) {
	for range mapTries {
		at, err := widestGap(s.pid)
		if err != nil {
			return 0, err
		}
		t, err := s.have(call{nr: unix.SYS_MMAP, args: []uint64{at, netPageSize, unix.PROT_READ | unix.PROT_EXEC,
			unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_FIXED_NOREPLACE, ^uint64(0), 0}})
		if err != nil {
			return 0, err
		}
		err = s.await(t, "the page to be mapped", func() (bool, error) { return s.mapped(at), nil })
		if err == nil || s.ended != nil {
			return at, err
		}
		if !errors.Is(err, ErrNotStopping) {
			return 0, err
		}
	}
	return 0, ErrNotStopping
}

// mapTries is how often another place for the page is tried.
const mapTries = 2

// widestGap returns the middle of the target's largest unused stretch of
// addresses, aligned to a page.
func widestGap(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, err
	}
	var last, at, width uint64
	last = 1 << 16 // vm.mmap_min_addr
	for line := range strings.Lines(string(b)) {
		lo, rest, _ := strings.Cut(line, "-")
		hi, _, _ := strings.Cut(rest, " ")
		start, err1 := strconv.ParseUint(lo, 16, 64)
		end, err2 := strconv.ParseUint(hi, 16, 64)
		if err1 != nil || err2 != nil || int64(start) < 0 {
			continue
		}
		if start > last && start-last > width {
			width, at = start-last, (last+(start-last)/2)&^(netPageSize-1)
		}
		last = end
	}
	if width < 16*netPageSize {
		return 0, errors.New("it has no room for a page")
	}
	return at, nil
}

// mappingEnd returns where the mapping that holds an address ends.
func mappingEnd(pid int, addr uint64) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		lo, rest, _ := strings.Cut(line, "-")
		hi, _, _ := strings.Cut(rest, " ")
		start, err1 := strconv.ParseUint(lo, 16, 64)
		end, err2 := strconv.ParseUint(hi, 16, 64)
		if err1 == nil && err2 == nil && start <= addr && addr < end {
			return end, nil
		}
	}
	return 0, fmt.Errorf("no memory at %#x", addr)
}

// sentTimeout is how long a thread may take to make the calls it was sent to
// make, when it is not kept from it by others that have its processor.
const sentTimeout = 2 * time.Second

// await polls for what a thread does once it has been let go, and meanwhile
// sees to what else comes to that thread: nil when there is nothing to see to.
func (s *session) await(t *tracee, what string, done func() (bool, error)) error {
	stopped := false
	who := s.pid
	if t != nil {
		who = t.tid
	}
	for p := newPatience(who, sentTimeout); ; time.Sleep(20 * time.Microsecond) {
		ok, err := done()
		if ok && stopped {
			_ = interrupt(t.tid) // back into the stop that it was let out of
		}
		if err != nil || ok {
			return err
		}
		if t != nil && s.threads[t.tid] != t || s.ended != nil {
			return s.noThread()
		}
		if t != nil {
			group, err := s.along(t)
			if stopped = stopped || group; err != nil && !gone(err) {
				return err
			}
		}
		if p.over(true) {
			return fmt.Errorf("wait for %s: %w", what, ErrNotStopping)
		}
	}
}

// along handles what has come to a thread on its way, so that it goes on. It
// reports whether it has let it out of a group stop: its tracer may.
func (s *session) along(t *tracee) (group bool, err error) {
	var ev event
	switch {
	case !peek(t.tid, &ev):
		return false, nil
	case ev.ended():
		s.reap(&ev)
		return false, nil
	case ev.trace() == unix.PTRACE_EVENT_STOP:
		t.group = false
		return ev.sig() != int(unix.SIGTRAP), s.resume(t, 0)
	case ev.trace() != 0:
		return false, s.born(t, &ev)
	case ev.syscallStop():
		return false, s.resume(t, 0)
	}
	return false, s.deliver(t, ev.sig())
}

// mapped reports whether there is memory at an address.
func (s *session) mapped(at uint64) bool {
	var b [1]byte
	_, err := s.mem.ReadAt(b[:], int64(at))
	return err == nil
}

func (s *session) noThread() error {
	if s.ended != nil || len(s.threads) == 0 {
		return unix.ESRCH
	}
	return ErrNotStopping
}

// unspread puts the target's own action back and frees the page. All threads
// stand still; close completes it when it lets them go. Twice is fine.
func (s *session) unspread() error {
	n := s.net
	if n == nil || s.ended != nil {
		s.net = nil
		return nil
	}
	t := s.usable()
	if t == nil {
		return ignoreGone(s.noThread())
	}
	s.net = nil
	var calls []call
	if n.Page == 0 {
		return nil // its action is its own
	}
	if !n.off {
		// Ignoring a signal discards it where it is pending: a breakpoint's
		// that a thread had blocked must not meet the default action.
		calls = append(calls, setAction(&sigaction{Handler: sigIgn}), setAction(&sigaction{}))
	}
	calls = append(calls, call{nr: unix.SYS_MUNMAP, args: []uint64{n.Page, netPageSize}})
	sent, err := s.send(t, calls...)
	if sent {
		s.sent, s.gone = t, n.Page
	}
	if sent || err != nil && !errors.Is(err, ErrNoRoom) {
		return ignoreGone(err)
	}
	for i := range calls {
		_, e := s.inject(t, &calls[i])
		err = errors.Join(err, e)
	}
	return ignoreGone(err)
}

func (s *session) unmap(t *tracee, page uint64) error {
	_, err := s.inject(t, &call{nr: unix.SYS_MUNMAP, args: []uint64{page, netPageSize}})
	return err
}

// setAction is the call that sets SIGTRAP's action.
func setAction(act *sigaction) call {
	c := call{nr: unix.SYS_RT_SIGACTION, data: make([]byte, sigactionSize),
		args: []uint64{uint64(unix.SIGTRAP), inData, 0, sigsetSize}}
	_, _ = binary.Encode(c.data, binary.LittleEndian, act) // it is as long as the data
	return c
}

// action sets SIGTRAP's action in a process, when act is not nil, and returns
// the one before.
func (s *session) action(t *tracee, act *sigaction) (sigaction, error) {
	c := call{nr: unix.SYS_RT_SIGACTION, data: make([]byte, 2*sigactionSize),
		args: []uint64{uint64(unix.SIGTRAP), 0, inData | sigactionSize, sigsetSize}}
	if act != nil {
		c.args[1] = inData
		if _, err := binary.Encode(c.data, binary.LittleEndian, act); err != nil {
			return sigaction{}, err
		}
	}
	var old sigaction
	if _, err := s.inject(t, &c); err != nil {
		return old, err
	}
	_, err := binary.Decode(c.data[sigactionSize:], binary.LittleEndian, &old)
	return old, err
}

// suspend puts the target's own action back because a SIGTRAP that is not ours
// is to be delivered, and raises that signal again: the stop it was found in
// is over after the injected call. The default action ends the process.
func (n *net) suspend(s *session, t *tracee) error {
	if n.off {
		return nil
	}
	n.off = true
	if _, err := s.action(t, &sigaction{}); err != nil {
		return err
	}
	return ignoreGone(unix.Tgkill(s.pid, t.tid, unix.SIGTRAP))
}

// mend puts the net back under a thread that stands at a breakpoint of its own
// memory's and had SIGTRAP blocked when it came there: all signals are, while a
// program creates a thread. The kernel has forced the signal on it, and has taken
// the action away from the whole process for that (see expose). The thread is
// exposed from now on.
func (n *net) mend(s *session, t *tracee) error {
	if n.off || n.Page == 0 || t.child {
		return nil
	}
	mask, err := getSigMask(t.tid)
	if err != nil || mask == 0 { // it blocks nothing, so it did not block that
		return err
	}
	if kept, err := s.catches(); err != nil || kept {
		return err
	}
	if _, err := s.action(t, &n.act); err != nil {
		return err
	}
	t.exposed = mask | trapMask
	return nil
}

// removeFrom restores a child that has inherited the net. One that shares the
// memory keeps it until exec resets the action: its page is there that long.
func (n *net) removeFrom(s *session, t *tracee, sharesMemory bool) error {
	if n.off || sharesMemory {
		return nil
	}
	if _, err := s.action(t, &sigaction{}); err != nil {
		return err
	}
	return s.unmap(t, n.Page)
}
