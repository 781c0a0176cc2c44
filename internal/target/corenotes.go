package target

import (
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"slices"
	"sort"
	"strings"
	"syscall"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// Signal is what ended a process.
type Signal struct {
	Number syscall.Signal // 0: the core was taken of a process that went on
	// Addr is what a fault was about; only a fault has one.
	Addr  remote.Addr
	Fault bool
	// From is the process that sent it, 0 when the kernel did.
	From int
}

// Describe is "signal 11 (segmentation fault) at 0x8".
func (s Signal) Describe() string {
	out := fmt.Sprintf("signal %d (%s)", int(s.Number), s.Number)
	switch {
	case s.Fault:
		out += " at " + s.Addr.String()
	case s.From != 0:
		out += fmt.Sprintf(", which process %d sent", s.From)
	}
	return out
}

// dumps reports whether a signal can have made the kernel write a core
// (SIG_KERNEL_COREDUMP_MASK in linux/signal.h). Another one is what gcore has stopped a
// process with, which went on.
func dumps(s syscall.Signal) bool {
	switch s {
	case syscall.SIGQUIT, syscall.SIGILL, syscall.SIGTRAP, syscall.SIGABRT, syscall.SIGBUS,
		syscall.SIGFPE, syscall.SIGSEGV, syscall.SIGXCPU, syscall.SIGXFSZ, syscall.SIGSYS:
		return true
	}
	return false
}

// The notes that are read (elf.h, core(5)).
const (
	ntPRStatus = 1
	ntPRPSInfo = 3
	ntAuxv     = 6
	ntSigInfo  = 0x53494749
	ntFile     = 0x46494c45
	ntARMTLS   = 0x401

	atPhdr        = 3
	atSysinfoEHDR = 33
)

// maxCoreThreads bounds the threads that are read.
const maxCoreThreads = 1 << 16

// fileRange is a stretch of memory that a file was mapped to.
type fileRange struct {
	start, end remote.Addr
	offset     uint64 // bytes
	path       string
}

// notes is what a core's notes say.
type notes struct {
	machine elf.Machine
	threads []CoreThread
	pid     int
	cmdline string
	signal  Signal
	files   []fileRange
	phdr    remote.Addr // of the program
	vdso    remote.Addr
	err     error
}

func align4(n uint64) uint64 { return (n + 3) &^ 3 }

// read goes through notes; what is cut off at the end is left out.
func (n *notes) read(b []byte) {
	for len(b) >= 12 {
		namesz, descsz := uint64(binary.LittleEndian.Uint32(b)), uint64(binary.LittleEndian.Uint32(b[4:]))
		typ := binary.LittleEndian.Uint32(b[8:])
		b = b[12:]
		if align4(namesz) > uint64(len(b)) || descsz > uint64(len(b))-align4(namesz) {
			return
		}
		name := strings.TrimRight(string(b[:namesz]), "\x00")
		b = b[align4(namesz):]
		desc := b[:descsz]
		b = b[min(align4(descsz), uint64(len(b))):]
		n.note(name, typ, desc)
	}
}

func (n *notes) note(name string, typ uint32, d []byte) {
	switch {
	case name == "CORE" && typ == ntPRStatus:
		n.status(d)
	case name == "CORE" && typ == ntPRPSInfo:
		n.info(d)
	case name == "CORE" && typ == ntAuxv:
		n.auxv(d)
	case name == "CORE" && typ == ntSigInfo:
		n.sigInfo(d)
	case name == "CORE" && typ == ntFile:
		n.fileList(d)
	case name == "LINUX" && typ == ntARMTLS && len(d) >= 8 && len(n.threads) > 0:
		n.threads[len(n.threads)-1].Regs.TLS = remote.Addr(binary.LittleEndian.Uint64(d))
	}
}

// amd64Regs are the registers in struct user_regs_struct's order (sys/user.h);
// -1 for what is read by itself or not at all.
var amd64Regs = [...]int{
	remote.R15, remote.R14, remote.R13, remote.R12, remote.RBP, remote.RBX, remote.R11, remote.R10, remote.R9, remote.R8,
	remote.RAX, remote.RCX, remote.RDX, remote.RSI, remote.RDI, -1, remote.RIP, -1, -1, remote.RSP,
}

// status reads struct elf_prstatus (linux/elfcore.h).
func (n *notes) status(d []byte) {
	const signal, pid, regs = 12, 32, 112
	const origRAX, fsBase = 15, 21
	t := CoreThread{}
	word := func(i int) uint64 { return binary.LittleEndian.Uint64(d[regs+8*i:]) }
	switch n.machine {
	case elf.EM_X86_64:
		if len(d) < regs+27*8 {
			n.err = fmt.Errorf("registers of %d bytes", len(d))
			return
		}
		t.Regs.Arch = remote.AMD64
		for i, reg := range amd64Regs {
			if reg >= 0 {
				t.Regs.Set(reg, word(i))
			}
		}
		t.Regs.OrigSyscall = int64(word(origRAX))
		t.Regs.TLS = remote.Addr(word(fsBase))
	case elf.EM_AARCH64:
		if len(d) < regs+34*8 {
			n.err = fmt.Errorf("registers of %d bytes", len(d))
			return
		}
		t.Regs.Arch, t.Regs.OrigSyscall = remote.ARM64, -1
		for i := range 33 { // x0 to x30, sp, pc: DWARF's order
			t.Regs.Set(i, word(i))
		}
	default:
		n.err = fmt.Errorf("it is of a processor (%v) that phpwhy does not know", n.machine)
		return
	}
	if len(n.threads) == maxCoreThreads {
		return
	}
	t.TID = int(int32(binary.LittleEndian.Uint32(d[pid:])))
	if len(n.threads) == 0 && n.signal.Number == 0 {
		n.signal.Number = syscall.Signal(binary.LittleEndian.Uint16(d[signal:]))
	}
	n.threads = append(n.threads, t)
}

// info reads struct elf_prpsinfo (linux/elfcore.h).
func (n *notes) info(d []byte) {
	const pid, name, args, end = 24, 40, 56, 136
	if len(d) < end {
		return
	}
	n.pid = int(int32(binary.LittleEndian.Uint32(d[pid:])))
	n.cmdline = strings.TrimSpace(cString(d[args:end]))
	if n.cmdline == "" {
		n.cmdline = cString(d[name:args])
	}
}

func cString(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// sigInfo reads siginfo_t (sigaction(2)).
func (n *notes) sigInfo(d []byte) {
	const code, addr = 8, 16
	if len(d) < 24 {
		return
	}
	s := Signal{Number: syscall.Signal(binary.LittleEndian.Uint32(d))}
	if s.Number == 0 {
		return
	}
	sent := int32(binary.LittleEndian.Uint32(d[code:])) <= 0 // SI_USER, SI_TKILL, SI_QUEUE
	switch s.Number {
	case syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGILL, syscall.SIGFPE:
		s.Fault = !sent
	}
	if s.Fault {
		s.Addr = remote.Addr(binary.LittleEndian.Uint64(d[addr:]))
	} else if sent {
		s.From = int(int32(binary.LittleEndian.Uint32(d[addr:])))
	}
	n.signal = s
}

func (n *notes) auxv(d []byte) {
	for ; len(d) >= 16; d = d[16:] {
		v := remote.Addr(binary.LittleEndian.Uint64(d[8:]))
		switch binary.LittleEndian.Uint64(d) {
		case atPhdr:
			n.phdr = v
		case atSysinfoEHDR:
			n.vdso = v
		}
	}
}

// fileList reads NT_FILE: a count, the size of a page, that many triples of
// start, end and offset in pages, and as many paths (fs/binfmt_elf.c).
func (n *notes) fileList(d []byte) {
	if len(d) < 16 {
		return
	}
	count, page := binary.LittleEndian.Uint64(d), binary.LittleEndian.Uint64(d[8:])
	d = d[16:]
	if count > uint64(len(d))/24 {
		return
	}
	paths := d[24*count:]
	for i := range count {
		e := d[24*i:]
		end := bytes.IndexByte(paths, 0)
		if end < 0 {
			return
		}
		n.files = append(n.files, fileRange{
			start: remote.Addr(binary.LittleEndian.Uint64(e)), end: remote.Addr(binary.LittleEndian.Uint64(e[8:])),
			offset: binary.LittleEndian.Uint64(e[16:]) * page, path: string(paths[:end]),
		})
		paths = paths[end+1:]
	}
	slices.SortFunc(n.files, func(a, b fileRange) int { return cmp.Compare(a.start, b.start) })
}

func (n *notes) fileAt(at remote.Addr) *fileRange {
	i := sort.Search(len(n.files), func(i int) bool { return n.files[i].start > at }) - 1
	if i < 0 || at >= n.files[i].end {
		return nil
	}
	return &n.files[i]
}
