package perf

import "github.com/phpwhy/phpwhy/symbolize/remote"

// Follow describes a linked list in the process that is copied at each hit:
// nodes of NodeSize bytes, of which five words are kept, and a descriptor per
// node, copied whole unless it is the same as the node before has.
type Follow struct {
	Head remote.Addr // of the pointer to the first node; 0: each thread has its own, see SetHead
	// Extra is the distance from there to a word that is copied besides.
	Extra int64
	// NodeSize is at most MaxNode, DescSize at most MaxDesc, in bytes.
	NodeSize, DescSize uint64
	// Offsets in a node: Next and Desc are pointers, A and B words, Flags has
	// 32 bits.
	Next, Desc, A, B, Flags uint64
}

const (
	// MaxNode and MaxDesc bound what is read of one node at once.
	MaxNode = 128
	MaxDesc = 512
	// FewNodes and MaxNodes bound the list. The kernel checks a program by going
	// around its loop as often as that: some milliseconds for few, half a second
	// for many.
	FewNodes = 64
	MaxNodes = 1100
)

// The layout of what a program hands over, in 64-bit words: a header, then per
// node an entry, with its descriptor behind it where withDesc is set.
const (
	headKind, headFirst, headExtra, headStatus, headSize, headBytes = 0, 8, 16, 24, 32, 40

	entryAt, entryA, entryDesc, entryFlags, entryB, entryBytes = 0, 8, 16, 24, 32, 40

	withDesc = 1 << 32 // in entryFlags
	// tidShift is where the thread is in entryFlags and headKind: another
	// thread's program may run in the middle of this one's, on the same buffer.
	tidShift = 33
	kindMask = 1<<tidShift - 1
	// clockKind is that of the timer; a breakpoint's is its index.
	clockKind = 1 << 16
)

// Status of a copied list.
const (
	statusWhole = iota
	statusFault // a node can't be read
	statusLong  // there are more nodes than are copied
	statusNone  // the thread's list is not known
)

// The control block: what this process and the programs share, in words.
const (
	ctlLeft = 0 // hits still to be copied; none while it is not positive
	ctlLost = 1 // hits that found no room in a ring
	ctlHits = 2 // per breakpoint: all hits
	ctlWords
)

const (
	progName = "phpwhy"
	// progLicense is that of the few instructions below. The kernel lets only
	// programs that are GPL-compatible read user memory.
	progLicense = "Dual MIT/GPL"
	maxLog      = 64 << 10
)

// Kinds of maps and programs, flags, and helpers, from include/uapi/linux/bpf.h.
const (
	mapHash, mapArray, mapPerfEventArray = 1, 2, 4
	mapMmapable                          = 1 << 10
	progKprobe, progPerfEvent            = 2, 7
	pseudoMapFD, pseudoMapValue          = 1, 2

	fnLookup, fnCPU, fnPidTgid, fnOutput, fnReadUser, fnPidTgidInside = 1, 8, 14, 25, 112, 120
)

// Registers: r0 is what a call returns, r1 to r5 are its arguments, r6 to r9
// are kept, r10 is the frame.
const (
	r0 = iota
	r1
	r2
	r3
	r4
	r5
	r6
	r7
	r8
	r9
	fp
)

// Instruction codes.
const (
	opAddImm, opAddReg = 0x07, 0x0f
	opMovImm, opMovReg = 0xb7, 0xbf
	opOrReg            = 0x4f
	opLoad64           = 0x18
	opLoadW, opLoadDW  = 0x61, 0x79
	opStoreW           = 0x63
	opStoreDW          = 0x7b
	opStoreImmDW       = 0x7a
	opAtomicDW         = 0xdb
	opShlImm           = 0x67
	opJmp, opJeqImm    = 0x05, 0x15
	opJeqReg           = 0x1d
	opJgtImm           = 0x25
	opJsleImm          = 0xd5
	opJneImm           = 0x55
	opCall, opExit     = 0x85, 0x95
)

// asm collects instructions and fills in jumps by label.
type asm struct {
	code   []uint64
	labels map[string]int
	jumps  map[int]string
}

func (a *asm) op(code uint8, dst, src int, off int16, imm int32) {
	a.code = append(a.code, uint64(code)|uint64(dst)<<8|uint64(src)<<12|uint64(uint16(off))<<16|uint64(uint32(imm))<<32)
}

func (a *asm) label(name string) { a.labels[name] = len(a.code) }

func (a *asm) jump(code uint8, dst, src int, imm int32, to string) {
	a.jumps[len(a.code)] = to
	a.op(code, dst, src, 0, imm)
}

func (a *asm) mov(dst, src int)             { a.op(opMovReg, dst, src, 0, 0) }
func (a *asm) movImm(dst int, v int32)      { a.op(opMovImm, dst, 0, 0, v) }
func (a *asm) load(dst, base int, off int)  { a.op(opLoadDW, dst, base, int16(off), 0) }
func (a *asm) store(base, off int, src int) { a.op(opStoreDW, base, src, int16(off), 0) }
func (a *asm) zero(base, off int)           { a.op(opStoreImmDW, base, 0, int16(off), 0) }
func (a *asm) call(fn int32)                { a.op(opCall, 0, 0, 0, fn) }

// imm64 loads a constant, or with src a map (pseudoMapFD, pseudoMapValue).
func (a *asm) imm64(dst, src int, lo, hi uint32) {
	a.op(opLoad64, dst, src, 0, int32(lo))
	a.op(0, 0, 0, 0, int32(hi))
}

// add adds to a word of the control block.
func (a *asm) add(ctl, n int, v int32) {
	a.imm64(r1, pseudoMapValue, uint32(ctl), uint32(8*n))
	a.movImm(r2, v)
	a.op(opAtomicDW, r1, r2, 0, 0)
}

func (a *asm) finish() []uint64 {
	for at, to := range a.jumps {
		a.code[at] |= uint64(uint16(int16(a.labels[to]-at-1))) << 16
	}
	return a.code
}

// The program's own stack.
const (
	fpKey  = -8
	fpWord = -16
	fpDesc = -24
	fpTID  = -32
	fpNode = -32 - MaxNode
)

// maps are the file descriptors that a program refers to, and room is the size
// of its buffer.
type maps struct{ buffers, rings, ctl, heads, room int }

// namespace is a pid namespace by its file's device and inode; 0 for the host's.
type namespace struct{ dev, ino uint64 }

// program makes the program of one breakpoint: it counts the hit, follows the
// list if there is one, and hands everything to this processor's ring. The
// kernel adds registers and stack, which the ring's event asks for.
func program(m maps, in namespace, kind, nodes int, f *Follow) []uint64 {
	a := &asm{labels: make(map[string]int), jumps: make(map[int]string)}
	a.mov(r6, r1)
	if kind != clockKind {
		a.add(m.ctl, ctlHits+kind, 1)
		a.imm64(r1, pseudoMapValue, uint32(m.ctl), 8*ctlLeft)
		a.load(r2, r1, 0)
		a.jump(opJsleImm, r2, 0, 0, "exit")
		a.add(m.ctl, ctlLeft, -1)
	}
	a.call(fnCPU)
	a.op(opStoreW, fp, r0, fpKey, 0)
	a.imm64(r1, pseudoMapFD, uint32(m.buffers), 0)
	a.mov(r2, fp)
	a.op(opAddImm, r2, 0, 0, fpKey)
	a.call(fnLookup)
	a.jump(opJeqImm, r0, 0, 0, "exit")
	a.mov(r7, r0)
	a.thread(in)
	a.op(opStoreW, fp, r0, fpKey, 0)
	a.op(opShlImm, r0, 0, 0, tidShift)
	a.store(fp, fpTID, r0)
	a.op(opAddImm, r0, 0, 0, int32(kind))
	a.store(r7, headKind, r0)
	for _, w := range []int{headFirst, headExtra, headStatus} {
		a.zero(r7, w)
	}
	a.movImm(r1, headBytes)
	a.store(r7, headSize, r1)
	if f != nil {
		a.follow(m, nodes, f)
	}
	a.label("output")
	a.load(r5, r7, headSize)
	a.jump(opJgtImm, r5, 0, int32(m.room), "exit")
	a.mov(r1, r6)
	a.imm64(r2, pseudoMapFD, uint32(m.rings), 0)
	a.imm64(r3, 0, 0xffffffff, 0) // BPF_F_CURRENT_CPU
	a.mov(r4, r7)
	a.call(fnOutput)
	a.jump(opJeqImm, r0, 0, 0, "exit")
	a.add(m.ctl, ctlLost, 1)
	a.label("exit")
	a.movImm(r0, 0)
	a.op(opExit, 0, 0, 0, 0)
	return a.finish()
}

// thread puts the thread's number into r0, as it is known where phpwhy runs. Of a
// thread of another namespace that is 0.
func (a *asm) thread(in namespace) {
	if in.ino == 0 {
		a.call(fnPidTgid)
		return
	}
	a.zero(fp, fpWord)
	a.imm64(r1, 0, uint32(in.dev), uint32(in.dev>>32))
	a.imm64(r2, 0, uint32(in.ino), uint32(in.ino>>32))
	a.mov(r3, fp)
	a.op(opAddImm, r3, 0, 0, fpWord)
	a.movImm(r4, 8) // struct bpf_pidns_info: thread, process
	a.call(fnPidTgidInside)
	a.load(r0, fp, fpWord)
}

// readUser reads n bytes from the address in r3 to where dst and off say.
func (a *asm) readUser(dst, off int, n uint64) {
	a.mov(r1, dst)
	if off != 0 {
		a.op(opAddImm, r1, 0, 0, int32(off))
	}
	a.movImm(r2, int32(n))
	a.call(fnReadUser)
}

// follow copies the list. r7 is the buffer, r8 counts, r9 is the node.
func (a *asm) follow(m maps, nodes int, f *Follow) {
	limit := int32(m.room - entryBytes - MaxDesc)
	a.zero(fp, fpWord)
	a.zero(fp, fpDesc)
	if f.Head != 0 {
		a.imm64(r9, 0, uint32(f.Head), uint32(f.Head>>32))
	} else {
		a.imm64(r1, pseudoMapFD, uint32(m.heads), 0)
		a.mov(r2, fp)
		a.op(opAddImm, r2, 0, 0, fpKey)
		a.call(fnLookup)
		a.jump(opJeqImm, r0, 0, 0, "none")
		a.load(r9, r0, 0)
	}
	a.mov(r3, r9)
	a.op(opAddImm, r3, 0, 0, int32(f.Extra))
	a.readUser(fp, fpWord, 8)
	a.load(r1, fp, fpWord)
	a.store(r7, headExtra, r1)
	a.mov(r3, r9)
	a.readUser(fp, fpWord, 8)
	a.jump(opJneImm, r0, 0, 0, "fault")
	a.load(r9, fp, fpWord)
	a.store(r7, headFirst, r9)
	a.movImm(r8, 0)

	a.label("loop")
	a.jump(opJeqImm, r9, 0, 0, "output")
	a.op(opAddImm, r8, 0, 0, 1)
	a.jump(opJgtImm, r8, 0, int32(nodes), "long")
	a.mov(r3, r9)
	a.readUser(fp, fpNode, f.NodeSize)
	a.jump(opJneImm, r0, 0, 0, "fault")
	a.load(r1, r7, headSize)
	a.jump(opJgtImm, r1, 0, limit, "long")
	a.mov(r2, r7)
	a.op(opAddReg, r2, r1, 0, 0)
	a.store(r2, entryAt, r9)
	a.load(r3, fp, fpNode+int(f.A))
	a.store(r2, entryA, r3)
	a.load(r3, fp, fpNode+int(f.B))
	a.store(r2, entryB, r3)
	a.op(opLoadW, r4, fp, int16(fpNode+int(f.Flags)), 0)
	a.load(r3, fp, fpTID)
	a.op(opOrReg, r4, r3, 0, 0)
	a.store(r2, entryFlags, r4)
	a.load(r3, fp, fpNode+int(f.Desc))
	a.store(r2, entryDesc, r3)
	a.load(r9, fp, fpNode+int(f.Next))
	a.op(opAddImm, r1, 0, 0, entryBytes)
	a.store(r7, headSize, r1)
	a.jump(opJeqImm, r3, 0, 0, "loop")
	a.load(r5, fp, fpDesc)
	a.jump(opJeqReg, r3, r5, 0, "loop")
	a.store(fp, fpDesc, r3)
	a.imm64(r5, 0, 0, withDesc>>32)
	a.op(opOrReg, r4, r5, 0, 0)
	a.store(r2, entryFlags, r4)
	a.op(opAddImm, r1, 0, 0, int32(descRoom(f.DescSize)))
	a.store(r7, headSize, r1)
	a.readUser(r2, entryBytes, f.DescSize)
	a.jump(opJmp, 0, 0, 0, "loop")

	if f.Head == 0 { // the kernel refuses code that can't be reached
		a.label("none")
		a.movImm(r1, statusNone)
		a.jump(opJmp, 0, 0, 0, "status")
	}
	a.label("fault")
	a.movImm(r1, statusFault)
	a.jump(opJmp, 0, 0, 0, "status")
	a.label("long")
	a.movImm(r1, statusLong)
	a.label("status")
	a.store(r7, headStatus, r1)
}

// descRoom is what a descriptor takes in the buffer.
func descRoom(n uint64) uint64 { return (n + 7) &^ 7 }
