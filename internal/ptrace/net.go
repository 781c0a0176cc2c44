package ptrace

import (
	"encoding/binary"
	"errors"
	"fmt"

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

	saSiginfo  = 0x4
	saRestart  = 0x10000000
	saRestorer = 0x04000000
	saOnStack  = 0x08000000
	saNoDefer  = 0x40000000

	sigactionSize = 32
	sigsetSize    = 8
	netPageSize   = 4096
)

// ErrOwnAction says that the target handles SIGTRAP itself.
var ErrOwnAction = errors.New("it has a SIGTRAP handler of its own")

// net describes what was changed in the target, enough to undo it; the guard
// gets a copy.
type net struct {
	Old  sigaction
	Page uint64 // 0 when there is none
	off  bool   // the action has been put back, or was never changed
}

// layout fills the page that the target gets.
type layout func(page uint64) (code []byte, handler, restorer uint64)

// spread installs the net. All threads stand still. A target with an action of
// its own is an ErrOwnAction, and is not changed.
func (s *session) spread(fill layout) error {
	t := s.usable()
	if t == nil {
		return s.noThread()
	}
	if err := s.borrow(); err != nil {
		return err
	}
	n := &net{off: true}
	var err error
	if n.Old, err = s.action(t, nil); err != nil {
		return err
	}
	s.net = n
	if n.Old.Handler != sigDfl {
		return ErrOwnAction
	}
	if n.Page, err = s.inject(t, &call{nr: unix.SYS_MMAP, args: []uint64{0, netPageSize, unix.PROT_READ | unix.PROT_EXEC,
		unix.MAP_PRIVATE | unix.MAP_ANONYMOUS, ^uint64(0), 0}}); err != nil {
		return fmt.Errorf("map a page in it: %w", err)
	}
	code, handler, restorer := fill(n.Page)
	copy(code[markAt:], netMark)
	if _, err := s.mem.WriteAt(code, int64(n.Page)); err != nil {
		return errors.Join(fmt.Errorf("write to that page: %w", err), s.unspread())
	}
	act := sigaction{Handler: handler, Restorer: restorer, Flags: saSiginfo | saRestorer | saOnStack | saNoDefer,
		// Nothing may run on top of the handler: its page goes away.
		Mask: ^uint64(1 << (uint(unix.SIGTRAP) - 1))}
	if _, err = s.action(t, &act); err != nil {
		return errors.Join(err, s.unspread())
	}
	n.off = false
	return nil
}

func (s *session) noThread() error {
	if s.ended != nil || len(s.threads) == 0 {
		return unix.ESRCH
	}
	return ErrNotStopping
}

// unspread puts the target's own action back and frees the page. Twice is fine.
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
	var errs error
	if !n.off || n.Page == 0 {
		// Ignoring a signal discards it where it is pending: a breakpoint's
		// that a thread had blocked must not meet the action of old.
		_, errs = s.action(t, &sigaction{Handler: sigIgn})
		_, err := s.action(t, &n.Old)
		errs = errors.Join(errs, err)
	}
	if n.Page != 0 {
		errs = errors.Join(errs, s.unmap(t, n.Page))
	}
	return ignoreGone(errs)
}

func (s *session) unmap(t *tracee, page uint64) error {
	_, err := s.inject(t, &call{nr: unix.SYS_MUNMAP, args: []uint64{page, netPageSize}})
	return err
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
	if _, err := s.action(t, &n.Old); err != nil {
		return err
	}
	return ignoreGone(unix.Tgkill(s.pid, t.tid, unix.SIGTRAP))
}

// removeFrom restores a child that has inherited the net. One that shares the
// memory keeps it until exec resets the action: its page is there that long.
func (n *net) removeFrom(s *session, t *tracee, sharesMemory bool) error {
	if n.off || sharesMemory {
		return nil
	}
	if _, err := s.action(t, &n.Old); err != nil {
		return err
	}
	return s.unmap(t, n.Page)
}
