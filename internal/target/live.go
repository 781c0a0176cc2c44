package target

import (
	"bytes"
	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// Live is a running process, opened for reading.
type Live struct {
	*proc.Process
	Mem  *proc.Memory
	Maps remote.Mappings // as of Open or the last Refresh
	// Program tells whether the process still runs what it ran when Open
	// looked; see proc.Process.Program.
	Program []byte
}

// Open looks a process up and opens its memory.
func Open(pid int) (*Live, error) {
	p, err := proc.Open(pid)
	if err != nil {
		return nil, err
	}
	program := p.Program() // before the mappings, so that a change between is noticed
	maps, err := p.Mappings()
	if err != nil {
		return nil, err
	}
	mem, err := p.Memory()
	if err != nil {
		return nil, err
	}
	return &Live{Process: p, Mem: mem, Maps: maps, Program: program}, nil
}

// Replaced reports whether the process has executed another program since it
// was opened; false for one that has ended.
func (l *Live) Replaced() bool {
	now := l.Process.Program()
	return len(now) > 0 && len(l.Program) > 0 && !bytes.Equal(l.Program, now)
}

// Refresh reads the mappings again.
func (l *Live) Refresh() error {
	maps, err := l.Mappings()
	if err != nil {
		return err
	}
	l.Maps = maps
	return nil
}

// Close gives the memory back.
func (l *Live) Close() error { return l.Mem.Close() }

// redZone is what the System V ABI lets a leaf function use below its stack
// pointer.
const redZone = 128

// Depth is how far a stack pointer is from the base of the process's first stack,
// where the main thread lives, in bytes; false when it is on another stack, of
// which nobody says where it ends.
func Depth(sp remote.Addr, maps remote.Mappings) (n uint64, ok bool) {
	for i := range maps {
		// It may have grown downwards since the mappings were read, but not into
		// what lies below.
		if m := &maps[i]; m.End > sp {
			n, ok = m.End.Distance(sp)
			return n, ok && m.Path == "[stack]"
		}
	}
	return 0, false
}

// CopyStack records the thread's stack from its stack pointer towards its
// base, at most limit bytes, and reports whether that reached the base.
func (s *Snapshot) CopyStack(maps remote.Mappings, limit int) (whole bool) {
	return s.CopyStackAt(s.Regs.SP(), maps, limit)
}

// CopyStackAt is CopyStack for a stack that the thread has switched away from,
// with its stack pointer at sp.
func (s *Snapshot) CopyStackAt(sp remote.Addr, maps remote.Mappings, limit int) (whole bool) {
	if sp < redZone {
		return false
	}
	from := sp - redZone
	n := limit
	// The main thread's stack grows downwards after the mappings were read,
	// so sp may lie below the start that is known; its end doesn't move.
	for i := range maps {
		m := &maps[i]
		if m.End <= sp {
			continue
		}
		if m.Contains(sp) || m.Path == "[stack]" {
			if rest, ok := m.End.Distance(from); ok && rest <= uint64(limit) {
				n, whole = int(rest), true
			}
		}
		break
	}
	s.Prefetch([]remote.Region{{At: from, Len: n}})
	return whole
}
