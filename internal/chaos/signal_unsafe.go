package main

import (
	"syscall"
	"unsafe"
)

// queued is the real-time signal that workers count: SIGRTMIN+5 of glibc.
const queued = syscall.Signal(34 + 5)

const siQueue = -1 // SI_QUEUE of asm-generic/siginfo.h

// sigqueue sends a signal with a value.
func sigqueue(pid int, sig syscall.Signal, value int32) error {
	si := struct { // siginfo_t
		signo, errno, code, _ int32
		pid                   int32
		uid                   uint32
		value                 uint64
		_                     [96]byte
	}{signo: int32(sig), code: siQueue, pid: int32(syscall.Getpid()), value: uint64(uint32(value))}
	_, _, e := syscall.RawSyscall(syscall.SYS_RT_SIGQUEUEINFO, uintptr(pid), uintptr(sig), uintptr(unsafe.Pointer(&si)))
	if e != 0 {
		return e
	}
	return nil
}
