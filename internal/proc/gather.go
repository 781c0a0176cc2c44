package proc

import (
	"golang.org/x/sys/unix"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// MaxGather is how many regions a Gather takes.
const MaxGather = maxIOV

// Gather reads the same regions over and over, in one system call and without
// asking for memory. It is not safe for concurrent use.
type Gather struct {
	local []unix.Iovec
	far   []unix.RemoteIovec
	buf   []byte
}

// NewGather makes a Gather of at most MaxGather regions, none of them empty.
func NewGather(regions []remote.Region) *Gather {
	n := 0
	for _, r := range regions {
		n += r.Len
	}
	g := &Gather{buf: make([]byte, n), local: make([]unix.Iovec, 1), far: make([]unix.RemoteIovec, len(regions))}
	if n > 0 {
		g.local[0].Base = &g.buf[0]
		g.local[0].SetLen(n)
	}
	for i, r := range regions {
		g.far[i] = unix.RemoteIovec{Base: uintptr(r.At), Len: r.Len}
	}
	return g
}

// Read returns the bytes of all regions, one behind the other, valid until the
// next Read; false when not all of them could be read.
func (g *Gather) Read(m *Memory) ([]byte, bool) {
	if len(g.buf) == 0 {
		return nil, false
	}
	n, err := unix.ProcessVMReadv(m.pid, g.local, g.far, 0)
	return g.buf, err == nil && n == len(g.buf)
}
