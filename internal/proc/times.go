package proc

import (
	"bytes"
	"errors"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Times is what a look at a process costs little to tell. Unlike Open, reading
// it neither checks the process nor keeps anything.
type Times struct {
	Start   uint64        // clock ticks after boot; with the pid it identifies the process
	CPU     time.Duration // of all its threads so far, in steps of TimesGrain
	Threads int
	State   byte // as ps shows it
}

// TimesGrain is the step in which Times counts processor time.
const TimesGrain = time.Second / clockTick

// maxStat bounds /proc/PID/stat and schedstat in bytes; the former has some
// 50 numbers and a name of 64 bytes at most.
const maxStat = 2048

// The fields of /proc/PID/stat (proc(5)) behind the name, counted from its
// third, the state.
const (
	statUtime   = 14 - 3
	statStime   = 15 - 3
	statThreads = 20 - 3
	statStart   = 22 - 3
)

var errStat = errors.New("its /proc/PID/stat is not as proc(5) says")

// ReadTimes reads them with one file of /proc.
func ReadTimes(pid int) (Times, error) {
	fail := func(err error) (Times, error) {
		return Times{}, &Error{PID: pid, What: "read the times", Err: classify(err)}
	}
	var buf [maxStat]byte
	b, err := readSmall("/proc/"+strconv.Itoa(pid)+"/stat", buf[:])
	if err != nil {
		return fail(err)
	}
	// The name may contain anything, also parentheses: its end is the last one.
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return fail(errStat)
	}
	f := bytes.Fields(b[i+1:])
	if len(f) <= statStart {
		return fail(errStat)
	}
	var n [4]uint64
	for i, at := range []int{statUtime, statStime, statThreads, statStart} {
		if n[i], err = strconv.ParseUint(string(f[at]), 10, 64); err != nil {
			return fail(errStat)
		}
	}
	return Times{
		Start: n[3], CPU: time.Duration(n[0]+n[1]) * TimesGrain, Threads: int(min(n[2], 1<<31)), State: f[0][0],
	}, nil
}

// Scheduled is what the scheduler counts of one thread.
type Scheduled struct {
	On     time.Duration // on a processor
	Queued time.Duration // ready to run, and waiting for one
	Slices uint64        // how often it was given one
}

var errSchedstat = errors.New("its schedstat is not three numbers")

// ReadScheduled reads it of a process's main thread.
func ReadScheduled(pid int) (Scheduled, error) {
	var buf [maxStat]byte
	b, err := readSmall("/proc/"+strconv.Itoa(pid)+"/schedstat", buf[:])
	var n [3]uint64
	if err == nil {
		f := bytes.Fields(b)
		if len(f) != len(n) {
			err = errSchedstat
		}
		for i := range n {
			if err == nil {
				n[i], err = strconv.ParseUint(string(f[i]), 10, 63)
			}
		}
	}
	if err != nil {
		return Scheduled{}, &Error{PID: pid, What: "read the CPU time", Err: classify(err)}
	}
	return Scheduled{On: time.Duration(n[0]), Queued: time.Duration(n[1]), Slices: n[2]}, nil
}

// SinceBoot is the time on which start times are counted.
func SinceBoot() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0, err
	}
	return time.Duration(ts.Nano()), nil
}

// StartedAt is a start time, in clock ticks, on the clock of SinceBoot.
func StartedAt(ticks uint64) time.Duration { return time.Duration(ticks) * TimesGrain }

// readSmall reads a file of /proc in one go and without Go's poller, which
// costs more than the file does.
func readSmall(path string, buf []byte) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	for {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return buf[:n], nil
	}
}

// Reader reads memory of a process by its pid, keeping no file open: whoever
// uses it makes sure that the pid still is the same process's.
func Reader(pid int) *Memory { return &Memory{pid: pid} }

// Monotonic is CLOCK_MONOTONIC.
func Monotonic() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0, err
	}
	return time.Duration(ts.Nano()), nil
}
