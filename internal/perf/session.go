package perf

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

const (
	// DefaultStack is what is copied of a stack, MaxStack the most that the
	// kernel does, in bytes; a record has at most 64 KiB.
	DefaultStack = 16 << 10
	MaxStack     = 32 << 10
	maxRecord    = 64<<10 - 8
	// recordRest is what a record takes besides the stack and the list.
	recordRest = 512
	// allRings bounds the buffers of all processors together, in bytes, as long
	// as each gets at least oneRing.
	allRings = 16 << 20
	oneRing  = 256 << 10
	// maxBatch bounds the records that one Read takes from one ring.
	maxBatch = 2048
	// maxThreads bounds the threads with a list of their own.
	maxThreads = 4096
	// bitRemoveOnExec is a bit of struct perf_event_attr, Linux 5.13 and later.
	bitRemoveOnExec = 1 << 36
	// maxPoints bounds the breakpoints.
	maxPoints = 64
)

// Point is a place in a file at which to look.
type Point struct {
	File   *os.File // the very file that is mapped
	Offset uint64   // of the instruction in it, bytes
	Name   string   // for messages
}

// Options say what to watch.
type Options struct {
	PID    int
	Points []Point
	Stack  int     // bytes of stack to copy; 0: DefaultStack
	Follow *Follow // nil: no list
	Long   bool    // copy MaxNodes of it rather than FewNodes
	// SampleEvery is the processor time of a thread after which it is looked
	// at, wherever it is; 0: never.
	SampleEvery time.Duration
}

// Session is a process that is being watched. Its methods are for one goroutine.
type Session struct {
	o      Options
	typ    uint32 // of uprobe events
	maps   maps
	ctl    []byte
	rings  []*ring
	progs  []int // per point; the last one is the clock's
	probes []int // events, while they are set
	clocks map[int]int
	sample Sample
	lost   uint64
	// ringSize and largest are the bytes of a ring and of the largest sample.
	ringSize, largest int
	closed            bool
}

const uprobeType = "/sys/bus/event_source/devices/uprobe/type"

// findType reads the number that the kernel has given to uprobe events.
func (s *Session) findType() error {
	b, err := os.ReadFile(uprobeType)
	if err != nil {
		return &Error{What: "set uprobes", Err: ErrNoUprobes, Advice: "no " + uprobeType + "; needs Linux 4.17 with CONFIG_UPROBE_EVENTS; take --engine hwbp or int3"}
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	if err != nil {
		return &Error{What: "set uprobes", Err: fmt.Errorf("%w: %s: %w", ErrNoUprobes, uprobeType, err)}
	}
	s.typ = uint32(n)
	return nil
}

// Open begins to watch. Until Resume is called nothing in the process has changed.
func Open(o Options) (*Session, error) {
	if runtime.GOARCH != "amd64" {
		return nil, &Error{What: "set uprobes", Err: ErrArch, Advice: "take --engine hwbp or int3"}
	}
	if o.Stack == 0 {
		o.Stack = DefaultStack
	}
	o.Stack = min(o.Stack&^7, MaxStack)
	if len(o.Points) > maxPoints {
		return nil, fmt.Errorf("more than %d breakpoints", maxPoints)
	}
	if f := o.Follow; f != nil && (f.NodeSize > MaxNode || f.DescSize > MaxDesc || f.Next+8 > f.NodeSize || f.Desc+8 > f.NodeSize ||
		f.A+8 > f.NodeSize || f.B+8 > f.NodeSize || f.Flags+4 > f.NodeSize) {
		return nil, fmt.Errorf("%w: nodes of %d bytes, descriptors of %d", errors.ErrUnsupported, f.NodeSize, f.DescSize)
	}
	s := &Session{o: o, clocks: make(map[int]int), maps: maps{buffers: -1, rings: -1, ctl: -1, heads: -1, room: headBytes}}
	for _, step := range []func() error{s.findType, s.openMaps, s.openRings, s.loadPrograms} {
		if err := step(); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

func (s *Session) openMaps() (err error) {
	cpus := runtimeCPUs()
	if s.o.Follow != nil {
		s.maps.room = (maxRecord - recordRest - s.o.Stack) &^ 7
	}
	if s.maps.buffers, err = newMap(mapArray, 4, uint32(s.maps.room), uint32(cpus), 0); err != nil {
		return refused("make a BPF map", err)
	}
	if s.maps.rings, err = newMap(mapPerfEventArray, 4, 4, uint32(cpus), 0); err != nil {
		return refused("make a BPF map", err)
	}
	if s.maps.ctl, err = newMap(mapArray, 4, pageSize, 1, mapMmapable); err != nil {
		return refused("make a BPF map", err)
	}
	if s.o.Follow != nil && s.o.Follow.Head == 0 {
		if s.maps.heads, err = newMap(mapHash, 4, 8, maxThreads, 0); err != nil {
			return refused("make a BPF map", err)
		}
	}
	s.ctl, err = unix.Mmap(s.maps.ctl, 0, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return err
}

// runtimeCPUs is the number of processors that there can be.
func runtimeCPUs() int {
	b, err := os.ReadFile("/sys/devices/system/cpu/possible")
	if err != nil {
		return runtime.NumCPU()
	}
	_, last, found := strings.Cut(strings.TrimSpace(string(b)), "-")
	n, err := strconv.Atoi(last)
	switch {
	case !found:
		return 1
	case err != nil || n < 0 || n >= maxCPUs:
		return runtime.NumCPU()
	}
	return n + 1
}

const maxCPUs = 8192

// openRings makes a buffer for each processor that is on: smaller ones where
// this process may not lock so much memory (perf_event_mlock_kb, ulimit -l).
func (s *Session) openRings() error {
	cpus := runtimeCPUs()
	for s.ringSize = max(oneRing, 1<<(bits.Len(uint(allRings/cpus))-1)); ; s.ringSize /= 2 {
		err := s.ringsOf(cpus, s.ringSize)
		if !errors.Is(err, unix.EPERM) || !errors.Is(err, errLocked) || s.ringSize <= oneRing {
			return err
		}
		for _, r := range s.rings {
			err = errors.Join(err, r.close())
		}
		s.rings = nil
	}
}

func (s *Session) ringsOf(cpus, size int) error {
	attr := unix.PerfEventAttr{
		Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_BPF_OUTPUT, Size: attrSize, Sample: 1,
		Sample_type:       unix.PERF_SAMPLE_TID | unix.PERF_SAMPLE_TIME | unix.PERF_SAMPLE_RAW | unix.PERF_SAMPLE_REGS_USER | unix.PERF_SAMPLE_STACK_USER,
		Bits:              unix.PerfBitWatermark | unix.PerfBitUseClockID,
		Clockid:           unix.CLOCK_MONOTONIC,
		Wakeup:            uint32(size), // nobody waits for it: waking costs the process time
		Sample_regs_user:  userRegsMask,
		Sample_stack_user: uint32(s.o.Stack),
	}
	for cpu := range cpus {
		fd, err := unix.PerfEventOpen(&attr, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if errors.Is(err, unix.ENODEV) {
			continue // the processor is off
		}
		if err != nil {
			return refused("open a perf buffer", err)
		}
		r, err := mapRing(fd, size)
		if err != nil {
			_ = unix.Close(fd)
			return refused("map a perf buffer", fmt.Errorf("%w: %w", errLocked, err))
		}
		s.rings = append(s.rings, r)
		if err := setFD(s.maps.rings, uint32(cpu), fd); err != nil {
			return refused("fill a BPF map", err)
		}
	}
	return nil
}

func (s *Session) loadPrograms() error {
	for i := range s.o.Points {
		if err := s.load(progKprobe, i); err != nil {
			return err
		}
	}
	if s.o.SampleEvery > 0 {
		return s.load(progPerfEvent, clockKind)
	}
	return nil
}

// SetHead tells where the list of one thread begins, 0 to forget it.
func (s *Session) SetHead(tid int, at remote.Addr) error {
	if s.maps.heads < 0 {
		return nil
	}
	if err := setHead(s.maps.heads, uint32(tid), uint64(at)); err != nil {
		return refused("fill a BPF map", err)
	}
	return nil
}

// hostPIDs is the inode of the pid namespace that the system began with
// (PROC_PID_INIT_INO in include/linux/proc_ns.h).
const hostPIDs = 0xeffffffc

// ownNamespace is the pid namespace whose numbers this process knows threads by.
func ownNamespace() namespace {
	var st unix.Stat_t
	if unix.Stat("/proc/self/ns/pid", &st) != nil || st.Ino == hostPIDs {
		return namespace{}
	}
	// The helper compares with the kernel's own dev_t: 12 bits of major, 20 of minor.
	return namespace{uint64(unix.Major(st.Dev))<<20 | uint64(unix.Minor(st.Dev)), st.Ino}
}

func (s *Session) load(progType uint32, kind int) error {
	nodes := FewNodes
	if s.o.Long {
		nodes = MaxNodes
	}
	fd, log, err := loadProgram(progType, program(s.maps, ownNamespace(), kind, nodes, s.o.Follow))
	if err != nil {
		if log = strings.TrimSpace(log); log != "" {
			lines := strings.Split(log, "\n")
			err = fmt.Errorf("%w: %s", err, strings.Join(lines[max(0, len(lines)-3):], "; "))
		}
		return refused("load a BPF program", fmt.Errorf("%w: %w", ErrNoProgram, err))
	}
	s.progs = append(s.progs, fd)
	return nil
}

// Resume sets the breakpoints, or sets them again. At most so many hits are
// copied; those that follow are only counted.
func (s *Session) Resume(most int) error {
	s.Allow(most)
	if len(s.probes) > 0 {
		return nil
	}
	for i, p := range s.o.Points {
		attr := unix.PerfEventAttr{Type: s.typ, Size: attrSize, Sample: 1, Ext2: p.Offset}
		fd, err := openUprobe(&attr, fmt.Sprintf("/proc/self/fd/%d", p.File.Fd()), s.o.PID)
		if err == nil {
			s.probes = append(s.probes, fd)
			err = unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_SET_BPF, s.progs[i])
		}
		if err != nil {
			return errors.Join(refused("set a uprobe on "+p.Name, err), s.Pause())
		}
	}
	return nil
}

// Allow sets how many hits are copied from now on.
func (s *Session) Allow(most int) { store(s.ctl, 8*ctlLeft, uint64(max(most, 0))) }

// Allowed is how many hits are still copied.
func (s *Session) Allowed() int { return max(0, int(int64(load(s.ctl, 8*ctlLeft)))) }

// Room is how many hits fit in a ring, going by the largest so far.
func (s *Session) Room() int { return s.ringSize / max(s.largest, s.o.Stack+recordRest) }

// Pause takes the breakpoints out.
func (s *Session) Pause() error {
	if s.ctl != nil {
		s.Allow(0)
	}
	var errs error
	for _, fd := range s.probes {
		errs = errors.Join(errs, unix.Close(fd))
	}
	s.probes = s.probes[:0]
	return errs
}

// Read hands what has been copied since to fn and returns how many samples
// there were. Those of other processes, such as a vfork child that still shares
// the memory, are left out. It does not wait.
func (s *Session) Read(fn func(*Sample)) (n int, err error) {
	descSize := uint64(0)
	if s.o.Follow != nil {
		descSize = s.o.Follow.DescSize
	}
	for _, r := range s.rings {
		_, rerr := r.drain(maxBatch, func(kind uint32, body []byte) error {
			switch kind {
			case recordLost:
				c := cursor{b: body}
				c.u64()
				s.lost += c.u64()
			case recordSample:
				s.largest = max(s.largest, len(body)+headerBytes)
				if err := s.sample.decode(body, descSize); err != nil {
					return err
				}
				if s.sample.PID == s.o.PID {
					n++
					fn(&s.sample)
				}
			}
			return nil
		})
		err = errors.Join(err, rerr)
	}
	return n, err
}

// Hits is how often each breakpoint was hit, seen or not.
func (s *Session) Hits() []uint64 {
	out := make([]uint64, len(s.o.Points))
	for i := range out {
		out[i] = load(s.ctl, 8*(ctlHits+i))
	}
	return out
}

// Lost is how many hits found no room in the rings.
func (s *Session) Lost() uint64 { return max(load(s.ctl, 8*ctlLost), s.lost) }

// Close takes everything out. Twice is fine.
func (s *Session) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	errs := s.Pause()
	for _, fd := range s.clocks {
		errs = errors.Join(errs, unix.Close(fd))
	}
	for _, r := range s.rings {
		errs = errors.Join(errs, r.close())
	}
	for _, fd := range s.progs {
		errs = errors.Join(errs, unix.Close(fd))
	}
	if s.ctl != nil {
		errs = errors.Join(errs, unix.Munmap(s.ctl))
	}
	for _, fd := range []int{s.maps.buffers, s.maps.rings, s.maps.ctl, s.maps.heads} {
		if fd >= 0 {
			errs = errors.Join(errs, unix.Close(fd))
		}
	}
	return errs
}

// Now is the time on the clock that Sample.At is on.
func Now() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
