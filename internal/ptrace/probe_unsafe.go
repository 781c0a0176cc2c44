package ptrace

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// defaultAction gives this process's action for a signal back to the kernel.
func defaultAction(sig unix.Signal) error {
	var sa sigaction
	if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&sa)), 0, sigsetSize, 0, 0); e != 0 {
		return e
	}
	return nil
}

// openUprobe counts how often a thread reaches a place in a file.
func openUprobe(path string, off uint64, tid int) (int, error) {
	b, err := os.ReadFile(uprobeType)
	if err != nil {
		return -1, err
	}
	typ, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	if err != nil {
		return -1, err
	}
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return -1, err
	}
	var pin runtime.Pinner
	pin.Pin(name)
	defer pin.Unpin()
	attr := unix.PerfEventAttr{
		Type: uint32(typ), Size: perfAttrSize, Ext1: uint64(uintptr(unsafe.Pointer(name))), Ext2: off,
	}
	return unix.PerfEventOpen(&attr, tid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
}
