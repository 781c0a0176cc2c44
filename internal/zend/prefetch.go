package zend

import (
	"encoding/binary"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

const (
	// maxPrefetchOplines bounds what is copied of one function's oplines, and
	// maxPrefetchTotal of all functions', in bytes. The page around the
	// stored opline is copied in any case.
	maxPrefetchOplines = 64 << 10
	maxPrefetchTotal   = 512 << 10
	// maxPrefetchStack bounds what is copied of the VM stack, in bytes. A call
	// takes some 100 to 250 there. It has pages of 256 KiB
	// (ZEND_VM_STACK_PAGE_SIZE), of which most workers use one.
	maxPrefetchStack = MaxFrames * 256
	maxStackPages    = 8
	justReturned     = 256
	// struct _zend_vm_stack { zval *top; zval *end; zend_vm_stack prev; }
	// has been so since 7.0 (Zend/zend_execute.h).
	vmStackTop, vmStackPrev = 0, 16
)

// Prefetch makes r, which records what is read through it, hold everything
// that Walk and LineAt will read. It is called while the process is stopped,
// so it reads in few rounds: globals, VM stack, functions, their strings and
// oplines.
func (th *Thread) Prefetch(r remote.Reader) {
	rt, l := th.rt, th.rt.Layout
	if l.PHP5 {
		th.prefetch5(r)
		return
	}
	remote.Prefetch(r, []remote.Region{
		{At: th.eg + remote.Addr(l.EGStackTop), Len: int(l.EGCurrent-l.EGStackTop) + 8},
		{At: th.eg + remote.Addr(th.exceptionOp()-l.EGExceptionOp+l.EGBeforeException), Len: 8},
	})
	th.prefetchStack(r)
	funcs, oplines := th.used(r)
	regions := make([]remote.Region, 0, 4*len(funcs))
	for _, f := range funcs {
		regions = append(regions, remote.Region{At: f, Len: int(l.FuncSize)})
	}
	remote.Prefetch(r, regions)

	regions = regions[:0]
	total := 0
	scopes := make([]remote.Addr, 0, len(funcs))
	b := make([]byte, l.FuncSize)
	word := func(off uint64) remote.Addr { return remote.Addr(binary.LittleEndian.Uint64(b[off:])) }
	str := func(a remote.Addr) {
		if a != 0 {
			regions = append(regions, remote.Region{At: a, Len: int(l.StringVal) + 128})
		}
	}
	for _, f := range funcs {
		if n, err := r.ReadMemory(b, f); err != nil && uint64(n) < l.InternalHandler+8 {
			continue
		}
		str(word(l.FuncName))
		if scope := word(l.FuncScope); scope != 0 {
			scopes = append(scopes, scope)
			regions = append(regions, remote.Region{At: scope + remote.Addr(l.ClassName), Len: 8})
		}
		if b[l.FuncType] == l.TypeInternal {
			continue
		}
		str(word(l.OpFilename))
		n := int(min(uint64(binary.LittleEndian.Uint32(b[l.OpLast:]))*l.OplineSize, maxPrefetchOplines))
		if total += n; total <= maxPrefetchTotal {
			regions = append(regions, remote.Region{At: word(l.OpOpcodes), Len: n})
		}
	}
	for _, o := range oplines {
		regions = append(regions, remote.Region{At: o, Len: int(l.OplineSize)})
	}
	remote.Prefetch(r, regions)

	regions = regions[:0]
	for _, s := range scopes {
		if name, err := remote.Pointer(r, s+remote.Addr(l.ClassName)); err == nil {
			str(name)
		}
	}
	remote.Prefetch(r, regions)
	// What is still missing, such as a longer string, is read one by one.
	for _, f := range funcs {
		rt.function(r, f)
	}
}

// prefetchStack copies the innermost part of the VM stack.
func (th *Thread) prefetchStack(r remote.Reader) {
	l := th.rt.Layout
	page, err1 := remote.Pointer(r, th.eg+remote.Addr(l.EGStack))
	top, err2 := remote.Pointer(r, th.eg+remote.Addr(l.EGStackTop))
	left := uint64(maxPrefetchStack)
	for range maxStackPages {
		if page == 0 || left == 0 || err1 != nil || err2 != nil {
			return
		}
		used, ok := top.Distance(page)
		if !ok || used == 0 {
			return
		}
		n := min(used, left)
		left -= n
		// Above the top are the calls that have just returned.
		remote.Prefetch(r, []remote.Region{{At: top - remote.Addr(n), Len: int(n + justReturned)}})
		// Deep recursion goes on at the top of the page before.
		if page, err1 = remote.Pointer(r, page+vmStackPrev); page != 0 && err1 == nil {
			top, err2 = remote.Pointer(r, page+vmStackTop)
		}
	}
}

// used collects the distinct functions and stored oplines on the stack.
func (th *Thread) used(r remote.Reader) (funcs, oplines []remote.Addr) {
	l := th.rt.Layout
	seenF, seenO := make(map[remote.Addr]bool), make(map[remote.Addr]bool)
	var lastF, lastO remote.Addr
	n := 0
	// Where the chain is broken, Walk says so.
	_ = th.chain(r, func(k link) (int, error) {
		n++
		f, o := k.word(l.EDFunc), k.word(l.EDOpline)
		// In deep recursion frame after frame is of the same function.
		if f != lastF && !seenF[f] {
			seenF[f] = true
			funcs = append(funcs, f)
		}
		if o != 0 && o != lastO && !seenO[o] {
			seenO[o] = true
			oplines = append(oplines, o)
		}
		lastF, lastO = f, o
		return n, nil
	})
	return funcs, oplines
}
