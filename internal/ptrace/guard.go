package ptrace

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/phpwhy/phpwhy/internal/proc"
)

// GuardArg is the hidden first argument with which this program runs itself as
// a guard; main passes it to HelperMain.
const GuardArg = "__ptrace-guard"

// undo is what the guard takes out of the target when its master is gone.
type undo struct {
	PID   int
	Sites []undoSite
	Net   net
	// Exposed are the masks of the threads that have SIGTRAP unblocked for the
	// time being, by thread.
	Exposed map[int]uint64
}

type undoSite struct {
	Addr, Slot uint64
	Code       []byte // of the instruction
}

// undo is what a guard needs to know of every engine.
func (s *session) undo() undo {
	u := undo{PID: s.pid, Exposed: map[int]uint64{}}
	if s.net != nil {
		u.Net = *s.net
	}
	for tid, t := range s.threads {
		if t.exposed != 0 {
			u.Exposed[tid] = t.exposed
		}
	}
	return u
}

// guard is the process that waits for this one's death. The worker survives
// that by its net; the guard gives it its own code and speed back.
type guard struct {
	cmd     *os.Process
	pipe    *os.File
	answers *os.File
	once    sync.Once
}

const (
	guardReady   = 'r'
	guardDismiss = 'q'
)

// startGuard starts the process; brief tells it what to guard.
func startGuard() (*guard, error) {
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, inR.Close(), inW.Close())
	}
	g := &guard{pipe: inW, answers: outR}
	// Not from the tracer's thread: its wait would see the guard's end.
	started := make(chan error, 1)
	go func() {
		var err error
		g.cmd, err = os.StartProcess("/proc/self/exe", []string{"phpwhy", GuardArg, strconv.Itoa(os.Getpid())}, &os.ProcAttr{
			// Go opens /dev/null for what is closed, and a root directory may have none.
			Files: []*os.File{inR, outW, outW},
			Env:   []string{"GOMAXPROCS=1"},
			// A session of its own: Ctrl-C and the like must not end it.
			Sys: &syscall.SysProcAttr{Setsid: true},
		})
		started <- err
	}()
	err = <-started
	err = errors.Join(err, inR.Close(), outW.Close())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the guard: %w", err), inW.Close(), outR.Close())
	}
	if err := g.answer(); err != nil {
		g.dismiss()
		return nil, fmt.Errorf("the guard did not start: %w", err)
	}
	return g, nil
}

// brief returns when the guard holds the target's memory.
func (g *guard) brief(u undo) error {
	b, err := json.Marshal(u)
	if err != nil {
		return err
	}
	if _, err := g.pipe.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("brief the guard: %w", err)
	}
	if err := g.answer(); err != nil {
		return fmt.Errorf("the guard did not take over: %w", err)
	}
	return nil
}

// update replaces what was told by brief. Nobody waits for the guard.
func (g *guard) update(u undo) error {
	b, err := json.Marshal(u)
	if err != nil {
		return err
	}
	if _, err := g.pipe.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("brief the guard again: %w", err)
	}
	return nil
}

// expose is the session's, with the guard told beforehand of what may have to be
// undone, and afterwards of what was done.
func (g *guard) expose(s *session, undo func() undo) error {
	u := undo()
	for _, t := range s.vehicles() {
		if m, ok := t.blocked(); ok && m&trapMask != 0 {
			u.Exposed[t.tid] = m
		}
	}
	if err := g.brief(u); err != nil {
		return err
	}
	if err := s.expose(); err != nil {
		return err
	}
	return g.update(undo())
}

// answer waits for the guard to say that it is ready for what comes next.
func (g *guard) answer() error {
	b := make([]byte, 1)
	if _, err := io.ReadFull(g.answers, b); err != nil || b[0] != guardReady {
		return fmt.Errorf("no answer: %w", err)
	}
	return nil
}

// dismiss ends the guard and waits for it. Twice is fine.
func (g *guard) dismiss() {
	g.once.Do(func() {
		_, _ = g.pipe.Write([]byte{guardDismiss})
		_ = g.pipe.Close()
		_ = g.answers.Close()
		_, _ = g.cmd.Wait()
	})
}

// guardMain is the guard: it returns an exit status. The argument is whose guard this
// is: the parent may be dead before it could be asked for.
func guardMain(args []string, in io.Reader, out io.WriteCloser) int {
	if len(args) != 1 {
		return 2
	}
	master, err := strconv.Atoi(args[0])
	if err != nil {
		return 2
	}
	if _, err := out.Write([]byte{guardReady}); err != nil {
		return 1
	}
	lines := bufio.NewReader(in)
	u, ok := briefing(lines)
	if !ok {
		return 0 // dismissed, or alone, before there was anything to guard
	}
	// Held open, so that the pid's next owner can't be meant.
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", u.PID), os.O_RDWR, 0)
	if err != nil {
		return 1
	}
	defer mem.Close()
	if _, err := out.Write([]byte{guardReady}); err != nil {
		return 1
	}
	_ = out.Close()
	for {
		more, ok := briefing(lines)
		if !ok {
			break
		}
		u = more
	}
	if b, err := lines.Peek(1); err == nil && b[0] == guardDismiss {
		return 0
	}
	if err := errors.Join(u.apply(mem, master), u.restoreChildren()); err != nil {
		return 1
	}
	return 0
}

// briefing reads what is to be guarded from now on. ok is false when nothing more
// comes, or a dismissal.
func briefing(lines *bufio.Reader) (u undo, ok bool) {
	if b, err := lines.Peek(1); err != nil || b[0] == guardDismiss {
		return u, false
	}
	line, err := lines.ReadBytes('\n')
	if err != nil { // it died in the middle of it
		return u, false
	}
	return u, json.Unmarshal(line, &u) == nil
}

// restoreChildren restores those that were forked with the breakpoints in
// their copy of the memory and that the tracer had no time for.
func (u *undo) restoreChildren() error {
	all, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	var errs error
	for _, e := range all {
		child, err := strconv.Atoi(e.Name())
		if err != nil || statusField(child, "PPid") != strconv.Itoa(u.PID) {
			continue
		}
		errs = errors.Join(errs, onThread(func() error {
			s := newSession(child)
			if err := s.attach(); err != nil {
				return s.close() // somebody else's by now, or gone
			}
			_ = s.stopAll()
			return errors.Join(s.reclaim(), u.uncover(s.mem), u.coverChild(s), s.close())
		}))
	}
	return errs
}

// coverChild blocks SIGTRAP in a child that has the mask of an exposed thread.
func (u *undo) coverChild(s *session) error {
	var errs error
	for _, t := range s.threads {
		now, err := getSigMask(t.tid)
		if !t.stopped || err != nil {
			continue
		}
		for _, was := range u.Exposed {
			if now == was&^trapMask {
				t.exposed = was
			}
		}
		errs = errors.Join(errs, ignoreGone(t.cover()))
	}
	return errs
}

// uncover puts back the code that breakpoints are still on.
func (u *undo) uncover(mem *os.File) error {
	var errs error
	for _, t := range u.Sites {
		b := make([]byte, len(breakCode))
		if _, err := mem.ReadAt(b, int64(t.Addr)); err != nil || !bytes.Equal(b, breakCode) {
			continue // another program by now, or clean
		}
		_, err := mem.WriteAt(t.Code[:len(breakCode)], int64(t.Addr))
		errs = errors.Join(errs, err)
	}
	return errs
}

const (
	// detachTimeout is how long the kernel may take to end the dead tracer: its
	// pipe closes before it stops being the tracer.
	detachTimeout = 5 * time.Second
	detachPoll    = time.Millisecond
)

// apply restores the code at once, then stops the target to remove the net: not
// before the master is gone altogether. Of a process that is killed one thread may
// have stopped tracing, and the pipe may be closed, while another one still holds
// the perf events of breakpoints that need the net.
func (u *undo) apply(mem *os.File, master int) error {
	e := &int3{bps: make([]Breakpoint, len(u.Sites)), page: u.Net.Page, armed: true}
	for _, t := range u.Sites {
		in, err := decodeInsn(t.Code)
		if err != nil {
			return err
		}
		e.at = append(e.at, site{addr: t.Addr, slot: t.Slot, insn: in})
	}
	if err := e.write(mem, false); err != nil {
		return err // the target is gone, or has another program by now
	}
	until := time.Now().Add(detachTimeout)
	for os.Getppid() == master && time.Now().Before(until) {
		time.Sleep(detachPoll)
	}
	for {
		err := onThread(func() error { return u.restore(mem) })
		again := errors.Is(err, ErrTraced) || errors.Is(err, proc.ErrPermission) || errors.Is(err, ErrNotStopping)
		if !again || time.Now().After(until) {
			return err
		}
		time.Sleep(detachPoll)
	}
}

// restore takes over the dead tracer's session. It removes what it finds, not
// what was put there: another tracer may have come first. A program that has
// replaced the target's has none of it and is left alone, but for the mask.
func (u *undo) restore(mem *os.File) error {
	s := newSession(u.PID)
	if err := s.attach(); err != nil {
		return errors.Join(err, s.close())
	}
	err := s.stopAll()
	var b [1]byte
	if n, _ := mem.ReadAt(b[:], int64(u.Net.Page)); u.Net.Page != 0 && n == len(b) {
		err = errors.Join(err, s.reclaim())
	}
	for tid, mask := range u.Exposed {
		switch t := s.threads[tid]; {
		case t == nil:
		case !t.stopped:
			err = errors.Join(err, ErrNotStopping) // the next try may find it standing
		default:
			t.exposed = mask
			err = errors.Join(err, ignoreGone(t.cover()))
		}
	}
	return errors.Join(err, s.close())
}
