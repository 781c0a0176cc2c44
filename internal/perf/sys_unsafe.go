package perf

import (
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const attrSize = uint32(unsafe.Sizeof(unix.PerfEventAttr{}))

// openUprobe opens an event whose first extension is a path.
func openUprobe(attr *unix.PerfEventAttr, path string, tid int) (int, error) {
	p, err := unix.BytePtrFromString(path)
	if err != nil {
		return -1, err
	}
	var pin runtime.Pinner
	pin.Pin(p)
	defer pin.Unpin()
	attr.Ext1 = uint64(uintptr(unsafe.Pointer(p)))
	fd, err := unix.PerfEventOpen(attr, tid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	attr.Ext1 = 0
	return fd, err
}

// word is a place in memory that is shared with the kernel.
func word(mem []byte, off int) *uint64 { return (*uint64)(unsafe.Pointer(&mem[off])) }

func load(mem []byte, off int) uint64     { return atomic.LoadUint64(word(mem, off)) }
func store(mem []byte, off int, v uint64) { atomic.StoreUint64(word(mem, off), v) }

const (
	headAt = int(unsafe.Offsetof(unix.PerfEventMmapPage{}.Data_head))
	tailAt = int(unsafe.Offsetof(unix.PerfEventMmapPage{}.Data_tail))
)

// The commands of bpf(2), and the parts of union bpf_attr that they use.
const (
	bpfMapCreate     = 0
	bpfMapUpdateElem = 2
	bpfMapDeleteElem = 3
	bpfProgLoad      = 5
)

type mapAttr struct {
	kind, key, value, entries, flags uint32
	innerFD, numaNode                uint32
	name                             [16]byte
}

type elemAttr struct {
	fd    uint32
	_     uint32
	key   uint64
	value uint64
	flags uint64
}

type progAttr struct {
	kind, count uint32
	insns       uint64
	license     uint64
	logLevel    uint32
	logSize     uint32
	log         uint64
	kernVersion uint32
	flags       uint32
	name        [16]byte
}

func bpf(cmd int, attr unsafe.Pointer, size uintptr) (int, error) {
	for {
		r, _, e := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(attr), size)
		switch e {
		case 0:
			return int(r), nil
		case unix.EAGAIN, unix.EINTR: // the verifier gives up when a signal comes
			continue
		}
		return -1, e
	}
}

func newMap(kind, key, value, entries, flags uint32) (int, error) {
	a := mapAttr{kind: kind, key: key, value: value, entries: entries, flags: flags}
	copy(a.name[:], progName)
	return bpf(bpfMapCreate, unsafe.Pointer(&a), unsafe.Sizeof(a))
}

// setFD puts a file descriptor in a map of those.
func setFD(m int, key uint32, fd int) error {
	return setElem(bpfMapUpdateElem, m, key, uint64(uint32(fd)))
}

// setHead puts an address in a map of those, or takes it out.
func setHead(m int, key uint32, v uint64) error {
	if v != 0 {
		return setElem(bpfMapUpdateElem, m, key, v)
	}
	if err := setElem(bpfMapDeleteElem, m, key, 0); err != unix.ENOENT {
		return err
	}
	return nil
}

// setElem is for maps whose values have at most eight bytes. What it points
// to is pinned: a goroutine's stack may move.
func setElem(cmd, m int, key uint32, v uint64) error {
	kv := &struct {
		value uint64
		key   uint32
	}{v, key}
	var pin runtime.Pinner
	pin.Pin(kv)
	defer pin.Unpin()
	a := elemAttr{fd: uint32(m), key: uint64(uintptr(unsafe.Pointer(&kv.key))), value: uint64(uintptr(unsafe.Pointer(&kv.value)))}
	_, err := bpf(cmd, unsafe.Pointer(&a), unsafe.Sizeof(a))
	return err
}

// loadProgram has the kernel check a program. Why it refuses one is in log.
func loadProgram(kind uint32, code []uint64) (fd int, log string, err error) {
	license, err := unix.BytePtrFromString(progLicense)
	if err != nil {
		return -1, "", err
	}
	var pin runtime.Pinner
	pin.Pin(license)
	pin.Pin(&code[0])
	defer pin.Unpin()
	a := progAttr{kind: kind, count: uint32(len(code)), insns: uint64(uintptr(unsafe.Pointer(&code[0]))), license: uint64(uintptr(unsafe.Pointer(license)))}
	copy(a.name[:], progName)
	if fd, err = bpf(bpfProgLoad, unsafe.Pointer(&a), unsafe.Sizeof(a)); err != nil {
		buf := make([]byte, maxLog)
		pin.Pin(&buf[0])
		a.log, a.logSize, a.logLevel = uint64(uintptr(unsafe.Pointer(&buf[0]))), maxLog, 1
		fd, err = bpf(bpfProgLoad, unsafe.Pointer(&a), unsafe.Sizeof(a))
		log = unix.ByteSliceToString(buf)
	}
	return fd, log, err
}
