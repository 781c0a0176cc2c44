package proc

import (
	"errors"
	"fmt"
	"io"
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
	if err != nil {
		return nil, p.refused(err)
	}
	return &Memory{pid: p.PID, mem: f}, nil
}

// refused explains why the memory can't be opened. CAP_SYS_PTRACE lets it be
// read, but the file is its owner's, and opening that takes a capability of its
// own: in a container that was given the first alone.
func (p *Process) refused(err error) error {
	e := p.fail("read the memory", err)
	var pe *Error
	if !errors.Is(e, ErrPermission) || !errors.As(e, &pe) {
		return e
	}
	var b [1]byte
	local := []unix.Iovec{{Base: &b[0], Len: 1}}
	_, err = unix.ProcessVMReadv(p.PID, local, []unix.RemoteIovec{{Base: 0, Len: 1}}, 0)
	var st unix.Stat_t
	if errors.Is(err, unix.EFAULT) && unix.Stat(p.path("mem"), &st) == nil { // nothing is at 0, and it let us look
		pe.Advice = fmt.Sprintf("it belongs to uid %d: run as that user, or with CAP_DAC_OVERRIDE besides CAP_SYS_PTRACE", st.Uid)
	}
	return e
}

// Close gives the file back.
func (m *Memory) Close() error { return m.mem.Close() }

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
