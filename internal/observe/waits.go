package observe

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/target"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

const (
	// maxPolled and maxSelected bound the file descriptors that are read of one
	// poll or select.
	maxPolled   = 256
	maxSelected = 1024
	// pollfd is the size of struct pollfd: an int and two shorts.
	pollfd = 8
	// maxFD is Linux's own bound (fs.nr_open can't be set higher by much).
	maxFD = 1 << 26
	// maxLooked bounds the file descriptors of one call that are looked at.
	maxLooked = 16
	// perStop is by how much a thread's count of switches grows from one sample
	// to the next while one wait lasts: to the stop, and back to the wait.
	perStop = 2
	// perOther is by how much more for each other one that waits for the same lock.
	perOther = 2
	// maxCounted bounds the threads whose switches are counted.
	maxCounted = 256
)

// waitTracker follows what the threads that run PHP wait for: which system call they
// are blocked in, and for how long it is the same call.
type waitTracker struct {
	threads map[int]*wait
	longest *wait // of those that lasted from one sample to another, or the only one
	// counters belong to the tracer's thread until the observation is over. nil
	// is a thread that can't be counted.
	counters map[int]*proc.Switches
	// locks are asked for what a thread waits for in flock(2) and the like; nil
	// knows of none.
	locks *proc.Locks
}

// count reads a thread's count of switches while it stands still. ok is false
// when it is not known.
func (w *waitTracker) count(p *proc.Process, tid int) (n uint64, ok bool) {
	s := w.open(p, tid)
	if s == nil {
		return 0, false
	}
	return s.Read()
}

// open makes a thread's count of switches ready to be read; nil when it can't be.
func (w *waitTracker) open(p *proc.Process, tid int) *proc.Switches {
	s, seen := w.counters[tid]
	if seen || len(w.counters) == maxCounted {
		return s
	}
	if w.counters == nil {
		w.counters = make(map[int]*proc.Switches)
	}
	s, _ = p.Switches(tid)
	w.counters[tid] = s
	return s
}

// close ends the counting.
func (w *waitTracker) close() {
	for _, s := range w.counters {
		if s != nil {
			_ = s.Close()
		}
	}
	w.counters = nil
}

// wait is one call that a thread is blocked in, as long as it lasts.
type wait struct {
	call     proc.Call
	since    time.Duration
	lasting  time.Duration // from the first sample to the last that saw it
	samples  int
	switches uint64 // the thread's, at the last sample
	counted  bool
	php      uint64 // the state of the call in PHP
	phpKnown bool
	lock     proc.FileLock // that it waits for
	waiters  int           // … and how many do; 0 when it waits for no lock
	fds      []int         // that it waits for, as far as it waits for some
	timeout  time.Duration
	limited  bool // there is a timeout; noLimit: it is known that there is none
	noLimit  bool
	fd       *proc.FD      // the one that matters; nil when nothing is known
	peers    int           // connections among those that were looked at
	seenAt   time.Duration // what had lasted when fd was looked at
}

// see takes a sample of a thread that runs PHP. What the call points to is read
// from the snapshot, and what that has not, from the process: it is unchanged as
// long as the thread waits. now has the count of switches and the state of the
// innermost call in PHP.
func (w *waitTracker) see(l *target.Live, snap *target.Snapshot, st *stack.Stack, at time.Duration, now wait) {
	r, was, ok := w.met(l, snap, st, at, &now)
	switch {
	case !ok:
	case was == nil:
		w.threads[snap.TID] = &now
	default:
		was.samples++
		was.lasting, was.switches = at-was.since, now.switches
		was.lock, was.waiters = now.lock, now.waiters
		if was.samples == 2 {
			was.describe(l, r)
		}
		w.judge(was)
	}
}

// look takes one of several looks at a thread, which may be far apart: each describes
// what there is, and the first already does.
func (w *waitTracker) look(l *target.Live, snap *target.Snapshot, st *stack.Stack, at time.Duration, now wait) {
	r, was, ok := w.met(l, snap, st, at, &now)
	if !ok {
		return
	}
	if was != nil {
		now.since, now.samples = was.since, was.samples+1
		now.lasting = at - was.since
	}
	w.threads[snap.TID] = &now
	now.describe(l, r)
	w.judge(&now)
}

// met completes what a thread waits for now, and finds the wait that it goes on with,
// nil for a new one. ok is false for a thread that does not wait.
func (w *waitTracker) met(l *target.Live, snap *target.Snapshot, st *stack.Stack, at time.Duration, now *wait) (r remote.Reader, was *wait, ok bool) {
	r = afterwards(l, snap)
	c, ok := callIn(r, snap, st)
	if !ok {
		delete(w.threads, snap.TID)
		return nil, nil, false
	}
	now.call, now.since, now.samples = c, at, 1
	now.asksLock(w.locks, l.PID)
	if was = w.threads[snap.TID]; was != nil && !was.goesOn(now) {
		was = nil
	}
	if w.threads == nil {
		w.threads = make(map[int]*wait)
	}
	return r, was, true
}

// afterwards reads what was copied of a thread, and what was not, from the process
// that runs again.
func afterwards(l *target.Live, snap *target.Snapshot) remote.Reader {
	return remote.ReaderFunc(func(p []byte, at remote.Addr) (int, error) {
		if n, err := snap.ReadMemory(p, at); err == nil {
			return n, nil
		}
		return l.Mem.ReadMemory(p, at)
	})
}

// callIn is the call that a stopped thread was blocked in, with its number; false
// when there is none or it has lost its number.
func callIn(r remote.Reader, snap *target.Snapshot, st *stack.Stack) (proc.Call, bool) {
	c, err := proc.CallAt(&snap.Regs)
	if err != nil {
		return c, false
	}
	return c, c.Restarted(r) || nameByStack(&c, st) || looksPolled(r, &c)
}

// once takes the only sample that there is of a thread.
func (w *waitTracker) once(l *target.Live, c proc.Call) {
	if !c.Restarted(l.Mem) && !looksPolled(l.Mem, &c) {
		return
	}
	now := &wait{call: c, samples: 1}
	now.describe(l, l.Mem)
	w.judge(now)
}

func (w *waitTracker) judge(of *wait) {
	switch {
	case of.limited && of.timeout == 0: // it asks, and waits for nothing
	case w.longest == nil || of.lasting > w.longest.lasting:
		w.longest = of
	default:
		w.longest.hears(of)
	}
}

// hears takes over for how long a later wait knows the same connection to be quiet:
// who wakes up now and then has waited for it all the time.
func (w *wait) hears(of *wait) {
	if w.fd == nil || of.fd == nil || of.fd.Number != w.fd.Number || of.fd.Peer != w.fd.Peer {
		return
	}
	was, known := w.quiet()
	if now, ok := of.quiet(); ok && known && now > was {
		w.fd.Quiet += now - was
	}
}

// nameByStack tells a call whose number is gone by the C library's function
// that made it: musl has the number in no instruction.
func nameByStack(c *proc.Call, st *stack.Stack) bool {
	for i := range min(len(st.Frames), 3) {
		if n, ok := proc.CallNamed(st.Frames[i].Function); ok {
			c.Number = n
			return true
		}
	}
	return false
}

// eventBits are what poll can be asked for (include/uapi/asm-generic/poll.h).
const eventBits = 0x27df

// looksPolled recognises a restarted poll by its arguments where no code tells
// its number: of the calls that the kernel restarts so, no other has a short
// array of what could be file descriptors first. musl is why: it keeps the
// number in no instruction, and tail calls leave no frame of poll's.
func looksPolled(r remote.Reader, c *proc.Call) bool {
	n := c.Args[1]
	if c.Number != proc.SysRestart || n == 0 || n > maxPolled {
		return false
	}
	b := make([]byte, pollfd*n)
	if remote.ReadFull(r, b, remote.Addr(c.Args[0])) != nil {
		return false
	}
	for ; len(b) > 0; b = b[pollfd:] {
		fd, events := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint16(b[4:])
		if fd > maxFD && int32(fd) >= 0 || events&^eventBits != 0 || events == 0 { //nolint:gosec // an int
			return false
		}
	}
	c.Number = proc.SysPoll
	return true
}

// goesOn reports whether now is the same wait, one sample later: the same call
// from the same place, and the thread has done nothing in between that made it
// wait anew.
func (w *wait) goesOn(now *wait) bool {
	a, b := &w.call, &now.call
	if a.Number != b.Number || a.SP != b.SP || a.PC != b.PC || a.Args[0] != b.Args[0] || a.Args[1] != b.Args[1] {
		return false
	}
	if w.phpKnown && now.phpKnown && w.php != now.php {
		return false
	}
	return w.counted && now.counted && now.switches-w.switches <= max(perStop, w.woken(now))
}

// woken is how many switches prove no other wait where the thread waits for a lock with
// others. Whoever of them is stopped leaves the queue, and those behind it are woken in
// the kernel to queue up anew (__locks_wake_up_blocks in fs/locks.c). That it is one call
// must show in PHP's state then, and in who has the lock.
func (w *wait) woken(now *wait) uint64 {
	if now.waiters == 0 { // its line was not there to be read, of all moments
		now.lock, now.waiters = w.lock, w.waiters
	}
	if w.waiters == 0 || w.lock != now.lock || !w.phpKnown || !now.phpKnown {
		return 0
	}
	return perStop + perOther*uint64(max(w.waiters, now.waiters)-1) //nolint:gosec // at least 1
}

// asksLock notes the lock that a call waits for.
func (w *wait) asksLock(t *proc.Locks, pid int) {
	if t == nil {
		return
	}
	var kinds []string
	switch c := &w.call; {
	case c.Number == proc.SysFlock:
		kinds = []string{"FLOCK"}
	case c.Number == proc.SysFcntl && (c.Args[1] == fcntlSetLockWait || c.Args[1] == fcntlSetOFDLockWait):
		kinds = []string{"POSIX", "OFDLCK"}
	default:
		return
	}
	w.lock, w.waiters, _ = t.WaitedFor(pid, kinds...)
}

// describe finds out what the call waits for.
func (w *wait) describe(l *target.Live, r remote.Reader) {
	c := &w.call
	first := int(int32(c.Args[0])) //nolint:gosec // how file descriptors are passed
	switch c.Number {
	case proc.SysPoll:
		w.fds = polled(r, c)
		w.within(int64(int32(c.Args[2])), time.Millisecond) //nolint:gosec // an int
	case proc.SysPpoll:
		w.fds = polled(r, c)
		w.at(r, c.Args[2], time.Nanosecond)
	case proc.SysSelect:
		w.fds = selected(r, c)
		w.at(r, c.Args[4], time.Microsecond)
	case proc.SysPselect6:
		w.fds = selected(r, c)
		w.at(r, c.Args[4], time.Nanosecond)
	case proc.SysEpollWait, proc.SysEpollPwait:
		w.fds, _ = l.Watched(first)
		if len(w.fds) == 0 {
			w.fds = []int{first}
		}
		w.within(int64(int32(c.Args[3])), time.Millisecond) //nolint:gosec // an int
	case proc.SysRead, proc.SysReadv, proc.SysWrite, proc.SysWritev, proc.SysConnect, proc.SysAccept, proc.SysAccept4,
		proc.SysRecvfrom, proc.SysRecvmsg, proc.SysSendto, proc.SysSendmsg, proc.SysFlock, proc.SysFcntl, proc.SysFsync:
		w.fds = []int{first}
	}
	w.seenAt = w.lasting
	for _, n := range w.fds[:min(len(w.fds), maxLooked)] {
		fd, err := l.FD(n)
		if err != nil {
			continue
		}
		// A pipe to oneself is how libraries wake themselves up.
		if w.fd == nil || w.fd.Peer == "" && fd.Peer != "" {
			w.fd = &fd
		}
		if fd.Peer != "" {
			w.peers++
		}
	}
}

// quiet is for how long the connection had carried nothing when it was last
// seen. What had come meanwhile would have ended the call.
func (w *wait) quiet() (d time.Duration, known bool) {
	if w.fd == nil || !w.fd.QuietKnown {
		return 0, false
	}
	return w.fd.Quiet + w.lasting - w.seenAt, true
}

// within notes a timeout that is a number, negative for none.
func (w *wait) within(n int64, unit time.Duration) {
	w.limited, w.noLimit = n >= 0, n < 0
	w.timeout = time.Duration(n) * unit
}

// at notes a timeout that is a timeval or timespec in the worker's memory. The
// kernel writes what is left of it there each time the thread was stopped.
func (w *wait) at(r remote.Reader, addr uint64, unit time.Duration) {
	if addr == 0 {
		w.noLimit = true
		return
	}
	var b [16]byte
	if remote.ReadFull(r, b[:], remote.Addr(addr)) != nil {
		return
	}
	sec, part := binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[8:])
	if sec > math.MaxInt32 || part >= uint64(time.Second) {
		return
	}
	w.limited, w.timeout = true, time.Duration(sec)*time.Second+time.Duration(part)*unit
}

// polled reads the file descriptors of poll's array.
func polled(r remote.Reader, c *proc.Call) []int {
	b := make([]byte, pollfd*min(c.Args[1], maxPolled))
	if remote.ReadFull(r, b, remote.Addr(c.Args[0])) != nil {
		return nil
	}
	var out []int
	for ; len(b) > 0; b = b[pollfd:] {
		if n := int32(binary.LittleEndian.Uint32(b)); n >= 0 { //nolint:gosec // an int; negative ones are left out
			out = append(out, int(n))
		}
	}
	return out
}

// selected reads the file descriptors of select's three sets, each once.
func selected(r remote.Reader, c *proc.Call) []int {
	n := int(min(c.Args[0], maxSelected)) //nolint:gosec // bounded
	var out []int
	seen := make(map[int]bool)
	for _, at := range c.Args[1:4] {
		b := make([]byte, (n+63)/64*8)
		if at == 0 || remote.ReadFull(r, b, remote.Addr(at)) != nil {
			continue
		}
		for i := range n {
			if b[i/8]&(1<<(i%8)) != 0 && !seen[i] {
				seen[i] = true
				out = append(out, i)
			}
		}
	}
	return out
}
