package proc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// ErrOtherNamespace says that what a process waits for belongs to a container.
var ErrOtherNamespace = errors.New("it is in another namespace than this process; run phpwhy inside its container")

// semGetPID is semctl(2)'s GETPID (include/uapi/linux/sem.h).
const semGetPID = 11

// SemaphoreHolder is the process that last changed the semaphore that the
// process waits for: of one that counts to one, as sem_acquire() uses it, its
// holder. sops is where the struct sembuf of semop(2) is.
func (p *Process) SemaphoreHolder(mem remote.Reader, id int, sops remote.Addr) (Holder, error) {
	if !p.sharesNamespace("ipc") {
		return Holder{}, fmt.Errorf("semaphore %d: %w", id, ErrOtherNamespace)
	}
	var b [2]byte // sem_num
	if err := remote.ReadFull(mem, b[:], sops); err != nil {
		return Holder{}, err
	}
	pid, _, errno := unix.Syscall6(unix.SYS_SEMCTL, uintptr(id), uintptr(binary.LittleEndian.Uint16(b[:])), semGetPID, 0, 0, 0)
	if errno != 0 {
		return Holder{}, fmt.Errorf("semaphore %d: who holds it: %w", id, errno)
	}
	h := NewHolder(int(pid))
	// A later process may have its number.
	if at, ok := semaphoreUsed(id); ok && h.PID != 0 && !h.Ended {
		if started, ok := startedAt(h.PID); ok && started.After(at.Add(2*time.Second)) {
			h = Holder{PID: h.PID, Ended: true}
		}
	}
	return h, nil
}

func (p *Process) sharesNamespace(kind string) bool {
	own, err := os.Readlink("/proc/self/ns/" + kind)
	theirs, err2 := os.Readlink(p.path("ns/" + kind))
	return err == nil && err2 == nil && own == theirs
}

// semaphoreUsed is when a set of semaphores was last changed, in full seconds.
func semaphoreUsed(id int) (time.Time, bool) {
	b, err := os.ReadFile("/proc/sysvipc/sem")
	if err != nil {
		return time.Time{}, false
	}
	for line := range strings.Lines(string(b)) {
		// key semid perms nsems uid gid cuid cgid otime ctime
		if f := strings.Fields(line); len(f) >= 9 && f[1] == strconv.Itoa(id) {
			n, err := strconv.ParseInt(f[8], 10, 64)
			return time.Unix(n, 0), err == nil && n > 0
		}
	}
	return time.Time{}, false
}

func startedAt(pid int) (time.Time, bool) {
	p, err := Open(pid)
	if err != nil {
		return time.Time{}, false
	}
	age, err := p.Age()
	return time.Now().Add(-age), err == nil
}

// The words of glibc's locks that hold the owner's thread id, from the word that
// a waiter sleeps on (sysdeps/nptl/bits/struct_mutex.h and
// sysdeps/x86/nptl/bits/struct_rwlock.h): of a mutex its owner, of a lock for
// readers and writers the one who writes.
const (
	mutexOwner       = 8
	writersFutexBase = 12
	phaseFutexBase   = 8
	rwlockWriter     = 24
	// futexTID masks the thread id in the word of a lock that the kernel knows
	// the owner of (FUTEX_TID_MASK).
	futexTID = 0x3fffffff
	// smallestTID is below any worker's, and above the flags that are in the
	// other words; workers in a container of their own may be missed.
	smallestTID = 4
)

// FutexOwner is who holds the lock that a thread of the process sleeps on, when
// the lock says so: a thread of the process, or one of another process that has
// the same memory mapped. ok is false when it does not; readers leave no name.
func (p *Process) FutexOwner(mem remote.Reader, word remote.Addr) (h Holder, ok bool) {
	var at []remote.Addr
	if word%8 == 0 {
		at = append(at, word+mutexOwner, word+rwlockWriter-phaseFutexBase)
	} else {
		at = append(at, word+rwlockWriter-writersFutexBase)
	}
	for _, a := range append(at, word) {
		v, err := remote.Uint32(mem, a)
		if err != nil {
			continue
		}
		tid := int(v)
		if a == word {
			tid = int(v & futexTID)
		}
		// Small numbers are states of a lock, and kinds of mutexes, not threads.
		if tid < smallestTID {
			continue
		}
		if h, ok := p.ownerOf(tid, word); ok {
			return h, true
		}
	}
	return Holder{}, false
}

// ownerOf finds the process of a thread that is known by the number that it has
// in the process's own pid namespace: itself, or one that shares the memory at
// word. A number that nobody has is that of an owner who died with the lock.
func (p *Process) ownerOf(tid int, word remote.Addr) (Holder, bool) {
	if own, err := p.ThreadsInside(); err == nil {
		if _, ok := own[tid]; ok {
			return NewHolder(p.PID), true
		}
	}
	maps, err := p.Mappings()
	if err != nil {
		return Holder{}, false
	}
	m := maps.Find(word)
	if m == nil || !m.Shared || !p.sharesNamespace("pid") {
		return Holder{}, false
	}
	if tid > maxTID() {
		return Holder{}, false
	}
	pid, err := threadGroup(tid)
	if errors.Is(err, os.ErrNotExist) {
		return Holder{PID: tid, Ended: true}, true
	}
	if err != nil {
		return Holder{}, false
	}
	other, err := Open(pid)
	if errors.Is(err, ErrZombie) {
		return Holder{PID: pid, Ended: true}, true
	}
	if err != nil {
		return Holder{}, false
	}
	theirs, err := other.Mappings()
	if err != nil {
		return Holder{}, false
	}
	for i := range theirs {
		if o := &theirs[i]; o.Shared && o.Inode == m.Inode && o.Dev == m.Dev {
			return NewHolder(pid), true
		}
	}
	return Holder{}, false
}

// maxTID is the largest number that a thread can have here.
func maxTID() int {
	b, err := os.ReadFile("/proc/sys/kernel/pid_max")
	if err != nil {
		return 1 << 22 // PID_MAX_LIMIT
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 1 << 22
	}
	return n
}

// Child is a process that another one waits for.
type Child struct {
	Holder
	State string // the one-letter state that ps shows
}

// Child looks at a child that is waited for, as wait4(2) is told it: a pid, or
// -1 for any, of which the oldest that still runs is taken. pids in a
// container's own numbers are translated.
func (p *Process) Child(pid int) (Child, bool) {
	children := p.Children()
	pick := 0
	for _, c := range children {
		st, err := ReadStatus(c)
		if err != nil {
			continue
		}
		inside, ok := innermostPID(st)
		state, _, _ := strings.Cut(st["State"], " ")
		if pid > 0 && ok && inside == pid || pid <= 0 && state != "Z" {
			pick = c
			break
		}
	}
	if pick == 0 {
		return Child{}, false
	}
	return p.ChildHere(pick)
}

// ChildHere is Child by the pid that it has here.
func (*Process) ChildHere(pid int) (Child, bool) {
	st, err := ReadStatus(pid)
	if err != nil {
		return Child{}, false
	}
	state, _, _ := strings.Cut(st["State"], " ")
	return Child{Holder: NewHolder(pid), State: state}, true
}

func innermostPID(s Status) (int, bool) {
	f := strings.Fields(s["NSpid"])
	if len(f) == 0 {
		return s.Number("Pid")
	}
	n, err := strconv.Atoi(f[len(f)-1])
	return n, err == nil
}
