package proc

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// maxIOV is UIO_MAXIOV, the most vectors that one process_vm_readv takes.
const maxIOV = 1024

// Region is a stretch of remote memory and the place its bytes go to.
type Region struct {
	At  remote.Addr
	Buf []byte
	Got int // bytes that were read, filled in by ReadRegions
}

// Memory reads the memory of a live process while it runs or is stopped.
// It implements remote.Reader and is safe for concurrent use.
type Memory struct {
	pid int
	mem *os.File // /proc/PID/mem: also reads pages without read permission
}

// Memory opens the process's memory. Close it.
func (p *Process) Memory() (*Memory, error) {
	f, err := os.Open(p.path("mem"))
	m := &Memory{pid: p.PID, mem: f}
	if err != nil {
		// The file belongs to the process's user; CAP_SYS_PTRACE alone opens it
		// to nobody else, but process_vm_readv asks for no more than that.
		m.mem = nil
		if !errors.Is(err, fs.ErrPermission) || !errors.Is(m.probe(0), unix.EFAULT) {
			return nil, p.fail("read the memory", err)
		}
	}
	return m, nil
}

// probe reads one byte and returns the system call's own error.
func (m *Memory) probe(at remote.Addr) error {
	var b [1]byte
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(1)
	_, err := unix.ProcessVMReadv(m.pid, local, []unix.RemoteIovec{{Base: uintptr(at), Len: 1}}, 0)
	return err
}

// Close gives the file back.
func (m *Memory) Close() error {
	if m.mem == nil {
		return nil
	}
	return m.mem.Close()
}

// ReadMemory implements remote.Reader.
func (m *Memory) ReadMemory(p []byte, at remote.Addr) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	r := []Region{{At: at, Buf: p}}
	m.readv(r)
	got := r[0].Got
	if got == len(p) {
		return got, nil
	}
	if m.mem == nil {
		rest, _ := at.Add(uint64(got))
		return got, &remote.ReadError{At: at, Want: len(p), Got: got, Err: m.reason(m.probe(rest))}
	}
	// process_vm_readv refuses what has no read permission; the file does not.
	if rest, ok := at.Add(uint64(got)); ok && int64(rest) >= 0 {
		n, err := m.mem.ReadAt(p[got:], int64(rest))
		if got += n; got == len(p) {
			return got, nil
		}
		return got, &remote.ReadError{At: at, Want: len(p), Got: got, Err: m.reason(err)}
	}
	return got, &remote.ReadError{At: at, Want: len(p), Got: got, Err: remote.ErrUnmapped}
}

// reason turns the kernel's EIO for an unmapped page into ErrUnmapped, and the
// empty read of a process whose memory is gone into ErrNoProcess.
func (m *Memory) reason(err error) error {
	switch {
	case err == nil, errors.Is(err, unix.EIO), errors.Is(err, unix.EFAULT):
		return remote.ErrUnmapped
	case errors.Is(err, unix.ESRCH), errors.Is(err, io.EOF):
		return fmt.Errorf("memory of %d: %w", m.pid, ErrNoProcess)
	}
	return err
}

// ReadRegions fills as many regions as it can with as few system calls as it
// can, and sets each one's Got. A region that is not readable doesn't keep the
// others from being read.
func (m *Memory) ReadRegions(rs []Region) {
	for len(rs) > 0 {
		done := m.readv(rs[:min(len(rs), maxIOV)])
		if done < len(rs) && done < maxIOV {
			// The region at which the kernel stopped is short; go on behind it.
			done++
		}
		rs = rs[min(done, len(rs)):]
	}
}

// readv makes one system call and returns how many regions were filled whole.
func (m *Memory) readv(rs []Region) int {
	local := make([]unix.Iovec, len(rs))
	rem := make([]unix.RemoteIovec, len(rs))
	for i := range rs {
		rs[i].Got = 0
		if len(rs[i].Buf) == 0 {
			continue
		}
		local[i].Base = &rs[i].Buf[0]
		local[i].SetLen(len(rs[i].Buf))
		rem[i] = unix.RemoteIovec{Base: uintptr(rs[i].At), Len: len(rs[i].Buf)}
	}
	n, err := unix.ProcessVMReadv(m.pid, local, rem, 0)
	if err != nil {
		return 0
	}
	for i := range rs {
		got := min(n, len(rs[i].Buf))
		rs[i].Got = got
		n -= got
		if got < len(rs[i].Buf) {
			return i
		}
	}
	return len(rs)
}
