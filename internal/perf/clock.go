package perf

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Watch has the clock look at these threads, and at no others any more.
func (s *Session) Watch(tids []int) error {
	if s.o.SampleEvery <= 0 {
		return nil
	}
	old := s.clocks
	s.clocks = make(map[int]int, len(tids))
	for _, tid := range tids {
		if fd, ok := old[tid]; ok {
			s.clocks[tid] = fd
			delete(old, tid)
			continue
		}
		fd, err := s.clock(tid)
		if errors.Is(err, unix.ESRCH) {
			continue // it has just ended
		}
		if err != nil {
			s.keep(old)
			return refused("set a timer", err)
		}
		s.clocks[tid] = fd
	}
	for _, fd := range old {
		_ = unix.Close(fd)
	}
	return nil
}

func (s *Session) keep(more map[int]int) {
	for tid, fd := range more {
		s.clocks[tid] = fd
	}
}

func (s *Session) clock(tid int) (int, error) {
	attr := unix.PerfEventAttr{
		Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK, Size: attrSize,
		Sample: uint64(s.o.SampleEvery), Sample_type: unix.PERF_SAMPLE_TID, Bits: bitRemoveOnExec,
	}
	fd, err := unix.PerfEventOpen(&attr, tid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if errors.Is(err, unix.EINVAL) {
		attr.Bits = 0
		fd, err = unix.PerfEventOpen(&attr, tid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	}
	if err != nil {
		return -1, err
	}
	if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_SET_BPF, s.progs[len(s.progs)-1]); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
