package observe

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/zend"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// Arguments of the system calls that are looked into (include/uapi/linux/fcntl.h,
// futex.h, wait.h), and limits.
const (
	fcntlSetLockWait, fcntlSetOFDLockWait = 7, 38
	futexCommand, futexWait, futexWaitBit = 127, 0, 9
	futexLockPI, futexLockPI2             = 6, 13
	waitForPID                            = 1
	// maxPath is PATH_MAX.
	maxPath = 4096
	// maxNamed is how many holders are named; the others are counted.
	maxNamed = 3
)

// holders finds out what the worker waits for, and who has it.
type holders struct {
	s *session
	m map[string]any
	p *proc.Process
}

// holderFacts adds what the system call tells in which a PHP thread is blocked.
// What is not there is left out. The worker runs meanwhile.
func (s *session) holderFacts(m map[string]any) {
	w := holders{s: s, m: m, p: s.live.Process}
	if name, ok := m["fd.path"].(string); ok {
		m["fd.path"] = shortPath(name)
	}
	// A socket on which connections are accepted has nobody at its other end.
	if of := s.pipe.waits.longest; of != nil && of.fd != nil && of.peers <= 1 && of.call.Number != proc.SysAccept && of.call.Number != proc.SysAccept4 {
		if h, ok := s.peers.Of(w.p, *of.fd); ok {
			m["fd.peer_pid"], m["fd.peer_cmdline"] = int64(h.PID), discreet(h.Cmdline)
			m["fd.peer_stopped"] = h.Stopped
		}
	}
	b, ok := s.blocked()
	if !ok {
		return
	}
	m["proc.syscall"] = int64(b.Number)
	switch b.Number {
	case proc.SysFlock:
		w.lock(int(int32(b.Args[0])), "flock", "FLOCK")
	case proc.SysFcntl:
		switch b.Args[1] {
		case fcntlSetLockWait, fcntlSetOFDLockWait:
			w.lock(int(int32(b.Args[0])), "fcntl", "POSIX", "OFDLCK")
		}
	case proc.SysSemop, proc.SysSemtimedop:
		w.m["lock.kind"] = "semaphore"
		h, err := w.p.SemaphoreHolder(s.live.Mem, int(int32(b.Args[0])), remote.Addr(b.Args[1]))
		if err != nil {
			s.note("%v", err)
		}
		w.heldBy([]proc.Holder{h})
	case proc.SysFutex:
		w.futex(b.Args)
	case proc.SysRead, proc.SysReadv:
		w.file(int(int32(b.Args[0])), false)
	case proc.SysWrite, proc.SysWritev:
		w.file(int(int32(b.Args[0])), true)
	case proc.SysOpen:
		w.opens(b.Args[0])
	case proc.SysOpenat:
		w.opens(b.Args[1])
	case proc.SysWait4:
		w.child(int(int32(b.Args[0])))
	case proc.SysWaitid:
		if b.Args[0] == waitForPID {
			w.child(int(int32(b.Args[1])))
		} else {
			w.child(-1)
		}
	}
	if m["lock.kind"] == nil {
		w.locked()
	}
	// That there is none is known, unless a pipe's other end was not found.
	if kind := m["fd.kind"]; m["child.pid"] == nil && (m["fd.held_by"] != nil || kind != proc.FDPipe && kind != proc.FDFIFO) {
		m["child.pid"] = int64(0)
	}
}

// blocked is the system call of the first PHP thread that is in one. A worker
// that was let go a moment ago has to enter it anew, which is not waited for when
// the registers that it stood still with have told.
func (s *session) blocked() (proc.Call, bool) {
	if s.facts.frozen {
		if s.facts.in == nil {
			return proc.Call{}, false
		}
		c := *s.facts.in
		return c, c.Restarted(s.live.Mem) || s.facts.restarted(&c)
	}
	tids := []int{s.live.PID}
	s.leadMu.Lock()
	if len(s.leads) > 0 {
		tids = slices.Sorted(maps.Keys(s.leads))
	}
	s.leadMu.Unlock()
	for range factTries {
		for _, tid := range tids {
			c, err := s.live.Blocked(tid)
			if err == nil && (c.Restarted(s.live.Mem) || s.facts.restarted(&c)) {
				return c, true
			}
		}
		time.Sleep(time.Millisecond)
	}
	// One that gets no processor meanwhile has not come to it. What several samples
	// saw it in is what it goes back to.
	for _, tid := range tids {
		if at := s.pipe.waits.threads[tid]; at != nil && at.samples > 1 {
			c := at.call
			return c, c.Restarted(s.live.Mem) || s.facts.restarted(&c)
		}
	}
	return proc.Call{}, false
}

// restarted gives a call that the kernel restarts the number that it had before
// the worker was stopped, if it is the same.
func (f *facts) restarted(c *proc.Call) bool {
	if !f.same(c) {
		return false
	}
	c.Number = f.blocked.Number
	return true
}

// lock tells of a lock on an open file.
func (w *holders) lock(fd int, kind string, kinds ...string) {
	w.m["lock.kind"] = kind
	w.describe(fd)
	if p, ok := w.m["fd.path"]; ok {
		w.m["lock.path"] = p
	}
	hs, err := w.s.locks.HoldersFor(w.p, fd, kinds...)
	if err != nil {
		w.s.note("%v", err)
	}
	w.heldBy(hs)
}

func (w *holders) heldBy(hs []proc.Holder) {
	w.m["lock.holder"] = names(hs)
	if len(hs) > 0 && hs[0].PID > 0 {
		w.m["lock.holder_pid"] = int64(hs[0].PID)
		w.m["lock.holder_cmdline"] = discreet(hs[0].Cmdline)
		w.m["lock.holder_ended"], w.m["lock.holder_stopped"] = hs[0].Ended, hs[0].Stopped
	}
}

// names are the holders in words.
func names(hs []proc.Holder) string {
	if len(hs) == 0 {
		return proc.Holder{}.String()
	}
	var out []string
	for _, h := range hs[:min(len(hs), maxNamed)] {
		h.Cmdline = discreet(h.Cmdline)
		out = append(out, h.String())
	}
	s := strings.Join(out, ", ")
	if more := len(hs) - maxNamed; more > 0 {
		s += fmt.Sprintf(" and %d more", more)
	}
	return s
}

func (w *holders) futex(args [6]uint64) {
	switch args[1] & futexCommand {
	case futexWait, futexWaitBit, futexLockPI, futexLockPI2:
	default:
		return
	}
	w.m["lock.kind"] = "futex"
	if h, ok := w.p.FutexOwner(w.s.live.Mem, remote.Addr(args[0])); ok {
		w.heldBy([]proc.Holder{h})
		return
	}
	w.heldBy(nil)
}

// describe tells of an open file.
func (w *holders) describe(fd int) (f proc.File, ok bool) {
	f, err := w.p.File(fd)
	if err != nil {
		return f, false
	}
	w.m["wait.fd"], w.m["fd.path"] = int64(fd), shortPath(f.Path)
	// Who looks into sockets knows more of them.
	if _, known := w.m["fd.kind"]; !known || f.Kind != proc.FDSocket {
		w.m["fd.kind"] = f.Kind
	}
	return f, true
}

// file tells of a file that is read or written, and of a pipe who has its
// other end.
func (w *holders) file(fd int, write bool) {
	f, ok := w.describe(fd)
	if !ok || f.Kind != proc.FDPipe && f.Kind != proc.FDFIFO {
		return
	}
	hs := w.p.OtherEnds(fd, write)
	w.m["fd.holder"] = names(hs)
	if len(hs) == 0 {
		return
	}
	if hs[0].PID > 0 {
		w.m["fd.held_by"] = int64(hs[0].PID)
	}
	if parent, err := w.p.Parent(); err == nil {
		w.m["fd.held_by_parent"] = slices.ContainsFunc(hs, func(h proc.Holder) bool { return h.PID == parent })
	}
	// A child's pipe: the program that was started is what is waited for.
	children := w.p.Children()
	for _, h := range hs {
		if slices.Contains(children, h.PID) {
			w.told(h.PID)
			return
		}
	}
}

// child tells of the child that wait4(2) waits for.
func (w *holders) child(pid int) {
	if c, ok := w.p.Child(pid); ok {
		w.toldChild(c)
	}
}

func (w *holders) told(pid int) {
	if c, ok := w.p.ChildHere(pid); ok {
		w.toldChild(c)
	}
}

func (w *holders) toldChild(c proc.Child) {
	c.Cmdline = discreet(c.Cmdline)
	w.m["child.pid"], w.m["child.cmdline"], w.m["child.state"] = int64(c.PID), c.Cmdline, c.State
	w.m["child.process"] = c.String()
}

// opens tells of a file that takes long to be opened: one without a reader or
// writer at its other end.
func (w *holders) opens(at uint64) {
	name, err := remote.CString(w.s.live.Mem, remote.Addr(at), maxPath)
	if err != nil {
		return
	}
	w.m["fd.path"] = shortPath(name)
	if kind, ok := w.p.KindAt(name); ok {
		w.m["fd.kind"] = kind
	}
}

// locked tells of an open file that somebody else has locked: a library that
// asks for it again and again sleeps in between.
func (w *holders) locked() {
	files, err := w.s.locks.LockedFiles(w.p, "POSIX", "OFDLCK")
	if err != nil {
		w.s.note("%v", err)
	}
	if len(files) == 0 {
		return
	}
	f := &files[0]
	w.m["lock.contended_path"] = shortPath(f.Path)
	w.m["lock.contended_holder"] = names(f.Holders)
	if len(f.Holders) > 0 && f.Holders[0].PID > 0 {
		w.m["lock.contended_pid"] = int64(f.Holders[0].PID)
	}
}

// discreet is a command line without its arguments if one of them looks like a
// secret: mysqldump -psecret, curl -H 'Authorization: …'.
func discreet(cmdline string) string {
	program, args, _ := strings.Cut(cmdline, " ")
	hidden := zend.SecretText(args)
	if strings.Contains(cmdline, "mysql") || strings.Contains(cmdline, "mariadb") {
		for _, a := range strings.Fields(args) {
			hidden = hidden || strings.HasPrefix(a, "-p") && len(a) > len("-p")
		}
	}
	if hidden {
		return program + " [redacted]"
	}
	return cmdline
}

// shownID is how much is shown of the name of a session's file, which is all
// that it takes to be its user.
const shownID = 6

// shortPath leaves out most of a session id.
func shortPath(s string) string {
	dir, base := path.Split(s)
	id, ok := strings.CutPrefix(base, "sess_")
	if !ok || len(id) <= shownID {
		return s
	}
	return dir + "sess_" + id[:shownID] + "…"
}
