package zend

import (
	"encoding/binary"
	"hash/maphash"
	"strings"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// maxCallState bounds how much of the VM stack is compared, in bytes. It is
// the innermost part: a loop that makes one call after the other has its
// counter in the caller's frame or in its caller's.
const maxCallState = 64 << 10

var callSeed = maphash.MakeSeed()

// CallState identifies the call of an internal function that a thread is in:
// two samples with the same state have seen one call, as far as the callers'
// variables and the arguments can tell. A loop that makes the same call again
// with all variables unchanged looks like one call, too. ok is false when no
// internal function runs, and for PHP 5. What it reads is what Prefetch copies.
func (th *Thread) CallState(r remote.Reader, frames []Frame) (state uint64, ok bool) {
	l := th.rt.Layout
	if l.PHP5 || len(frames) == 0 || !frames[0].inC() {
		return 0, false
	}
	page, err := remote.Pointer(r, th.eg+remote.Addr(l.EGStack))
	if err != nil || page == 0 {
		return 0, false
	}
	top, err := remote.Pointer(r, th.eg+remote.Addr(l.EGStackTop))
	if err != nil {
		return 0, false
	}
	used, ok := top.Distance(page)
	if !ok || used == 0 {
		return 0, false
	}
	b := make([]byte, min(used, maxCallState))
	if err := remote.ReadFull(r, b, top-remote.Addr(len(b))); err != nil {
		return 0, false
	}
	var h maphash.Hash
	h.SetSeed(callSeed)
	maphash.WriteComparable(&h, [3]remote.Addr{frames[0].ExecuteData, frames[0].opline, top})
	_, _ = h.Write(b)
	return h.Sum64(), true
}

// inC reports whether the innermost frame is at work in a function written in
// C. Since 8.4 some have no frame of their own.
func (f *Frame) inC() bool { return f.Internal || strings.HasPrefix(f.Opcode, framelessCall) }

// maxArguments bounds the arguments that are looked at.
const maxArguments = 16

// LongestArgument is the length in bytes of the longest string among the
// arguments of the internal function that a thread is in. stack is the
// snapshot; strings are read through r, while the process may run. ok is false
// when no internal function runs or its arguments can't be read.
func (th *Thread) LongestArgument(r, stack remote.Reader, frames []Frame) (n uint64, ok bool) {
	l := th.rt.Layout
	if l.PHP5 || l.Values.Missing != "" || len(frames) == 0 || !frames[0].Internal {
		return 0, false
	}
	ed := frames[0].ExecuteData
	args, err := remote.Uint32(stack, ed+remote.Addr(l.Values.EDNumArgs))
	if err != nil {
		return 0, false
	}
	b := make([]byte, zvalSize*min(args, maxArguments))
	if err := remote.ReadFull(stack, b, ed+remote.Addr(l.EDSize)); err != nil {
		return 0, false
	}
	for i := 0; i < len(b); i += zvalSize {
		if b[i+zvalType] != zString {
			continue
		}
		at := remote.Addr(binary.LittleEndian.Uint64(b[i:]))
		if size, err := remote.Uint64(r, at+remote.Addr(l.StringLen)); err == nil && size < 1<<40 {
			n = max(n, size)
		}
	}
	return n, true
}
