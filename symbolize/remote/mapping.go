package remote

import "sort"

// Mapping is one line of /proc/PID/maps, or one PT_LOAD/NT_FILE entry of a core.
type Mapping struct {
	Start, End        Addr   // [Start, End)
	Offset            uint64 // of Start in the file, bytes
	Read, Write, Exec bool
	Shared            bool
	Dev               uint64 // device of the file as makedev(3) encodes it; 0 for none
	Inode             uint64 // 0 for anonymous memory
	Path              string // as the kernel shows it, without " (deleted)"; "[heap]", "[vdso]", "" for anonymous
	Deleted           bool   // the kernel appended " (deleted)"
}

// Contains reports whether a lies in the mapping.
func (m *Mapping) Contains(a Addr) bool { return a >= m.Start && a < m.End }

// Mappings are sorted by Start and do not overlap.
type Mappings []Mapping

// Find returns the mapping that contains a, or nil.
func (ms Mappings) Find(a Addr) *Mapping {
	i := sort.Search(len(ms), func(i int) bool { return ms[i].End > a })
	if i < len(ms) && ms[i].Contains(a) {
		return &ms[i]
	}
	return nil
}
