// Package target is what can be looked at as if frozen: a live process that is
// stopped for a moment, and the snapshot that is left of it once it runs again.
//
// Contract: while the worker is stopped a Snapshot records, page by page, what
// is read through it. Freeze ends the recording; from then on only recorded
// bytes can be read, so that no later stage can mix two instants.
//
// Non-goal: it doesn't stop anything; package ptrace does.
package target

import (
	"errors"
	"slices"

	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

const (
	pageSize = 4096
	// maxSnapshot bounds what one stop may copy, in bytes. Copying costs the
	// worker about 0.1 ms per MiB.
	maxSnapshot = 8 << 20
)

// ErrSnapshotFull says that a stop would have had to copy more than a
// snapshot holds.
var ErrSnapshotFull = errors.New("snapshot is full")

// Source is the memory that a snapshot records from: a process's or a core's.
type Source interface {
	ReadRegions(rs []proc.Region)
}

// Snapshot is a thread's registers and the memory that was read while it was
// stopped. It implements remote.Reader and remote.Prefetcher and is not safe
// for concurrent use.
type Snapshot struct {
	TID  int
	Regs remote.Regs

	src   Source // nil once frozen
	index map[remote.Addr]int
	slab  []byte // whole pages, in the order they were read
	reads int
	full  bool

	want    []remote.Addr // scratch of Prefetch
	regions []proc.Region
}

// NewSnapshot makes an empty snapshot that records from m.
func NewSnapshot(m Source) *Snapshot {
	s := &Snapshot{index: make(map[remote.Addr]int, 64)}
	s.Reset(m)
	return s
}

// Reset empties the snapshot for another stop and keeps its storage.
func (s *Snapshot) Reset(m Source) {
	s.src = m
	s.slab = s.slab[:0]
	s.reads = 0
	s.full = false
	clear(s.index)
}

// Grow makes room for n bytes, and touches it: the kernel hands memory out on
// first use only.
func (s *Snapshot) Grow(n int) {
	s.slab = slices.Grow(s.slab, n)
	clear(s.slab[:cap(s.slab)])
}

// Freeze ends the recording.
func (s *Snapshot) Freeze() { s.src = nil }

// Size is the recorded memory in bytes.
func (s *Snapshot) Size() int { return len(s.slab) }

// Cap is how many bytes can be recorded without asking for memory.
func (s *Snapshot) Cap() int { return cap(s.slab) }

// Reads is the number of read requests made to the live process.
func (s *Snapshot) Reads() int { return s.reads }

// Prefetch implements remote.Prefetcher: it records all regions in one go.
func (s *Snapshot) Prefetch(regions []remote.Region) {
	if s.src == nil {
		return
	}
	s.want = s.want[:0]
	for _, g := range regions {
		if g.Len <= 0 {
			continue
		}
		last, ok := g.At.Add(uint64(g.Len - 1))
		if !ok {
			continue
		}
		for a := page(g.At); ; a += pageSize {
			if _, have := s.index[a]; !have {
				s.want = append(s.want, a)
			}
			if a >= page(last) || len(s.want)*pageSize > maxSnapshot {
				break
			}
		}
	}
	s.fetch()
}

// fetch records the wanted pages, joining neighbours into one region.
func (s *Snapshot) fetch() {
	slices.Sort(s.want)
	s.want = slices.Compact(s.want)
	if room := (maxSnapshot - len(s.slab)) / pageSize; len(s.want) > room {
		s.want = s.want[:room]
		s.full = true
	}
	if len(s.want) == 0 {
		return
	}
	base := len(s.slab)
	s.slab = slices.Grow(s.slab, len(s.want)*pageSize)[:base+len(s.want)*pageSize]
	s.regions = s.regions[:0]
	for i := 0; i < len(s.want); {
		j := i + 1
		for j < len(s.want) && s.want[j] == s.want[j-1]+pageSize {
			j++
		}
		s.regions = append(s.regions, proc.Region{At: s.want[i], Buf: s.slab[base+i*pageSize : base+j*pageSize]})
		i = j
	}
	s.reads++
	s.src.ReadRegions(s.regions)
	off := base
	for _, g := range s.regions {
		for done := 0; done+pageSize <= g.Got; done += pageSize {
			s.index[g.At+remote.Addr(done)] = off + done
		}
		off += len(g.Buf)
	}
}

// ReadMemory implements remote.Reader. While recording, pages not yet seen are
// read from the live process; afterwards they are ErrNotCopied.
func (s *Snapshot) ReadMemory(p []byte, at remote.Addr) (int, error) {
	got := 0
	for got < len(p) {
		a, ok := at.Add(uint64(got))
		if !ok {
			break
		}
		off, have := s.index[page(a)]
		if !have && s.src != nil {
			s.Prefetch([]remote.Region{{At: a, Len: len(p) - got}})
			off, have = s.index[page(a)]
		}
		if !have {
			break
		}
		in := int(a & (pageSize - 1))
		got += copy(p[got:], s.slab[off+in:off+pageSize])
	}
	if got == len(p) {
		return got, nil
	}
	err := remote.ErrUnmapped
	switch {
	case s.full:
		err = ErrSnapshotFull
	case s.src == nil:
		err = remote.ErrNotCopied
	}
	return got, &remote.ReadError{At: at, Want: len(p), Got: got, Err: err}
}

func page(a remote.Addr) remote.Addr { return a &^ (pageSize - 1) }

// Recorded reports whether n bytes at an address have been copied.
func (s *Snapshot) Recorded(at remote.Addr, n int) bool {
	last, ok := at.Add(uint64(max(n, 1) - 1))
	if !ok {
		return false
	}
	for a := page(at); ; a += pageSize {
		if _, have := s.index[a]; !have {
			return false
		}
		if a >= page(last) {
			return true
		}
	}
}
