package zend

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/arch/x86/x86asm"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// ErrNoFact says that this version or build doesn't tell what was asked for.
var ErrNoFact = errors.New("this PHP does not tell")

// GC is the state of the cycle collector, as gc_status() has it.
type GC struct {
	Runs, Collected uint64
	// Roots are buffered now; a run begins at Threshold. Both since 7.3, 0 before.
	Roots, Threshold uint64
	Enabled          bool
	Active           bool // a run is in progress
	Protected        bool // no roots can be added: a run or the end of the request
	// Time was spent in runs so far; since 8.3, 0 before.
	Time time.Duration
}

// maxRoots is GC_MAX_BUF_SIZE (Zend/zend_gc.c).
const maxRoots = 0x40000000

// GC reads the cycle collector's state.
func (th *Thread) GC(r remote.Reader) (GC, error) {
	f := &th.rt.Layout.Facts
	at, err := th.gcGlobals(r)
	if err != nil {
		return GC{}, err
	}
	var g GC
	var ns, buffer uint64
	var enabled, active, protected uint64
	for _, m := range []struct {
		dst *uint64
		m   Member
	}{
		{&g.Runs, f.GCRuns}, {&g.Collected, f.GCCollected}, {&g.Roots, f.GCRoots}, {&g.Threshold, f.GCThreshold}, {&buffer, f.GCBuffer},
		{&ns, f.GCTime}, {&enabled, f.GCEnabled}, {&active, f.GCActive}, {&protected, f.GCProtected},
	} {
		if err := member(r, at, m.m, m.dst); err != nil {
			return GC{}, fmt.Errorf("the cycle collector: %w", err)
		}
	}
	if enabled > 1 || active > 1 || protected > 1 || g.Roots > buffer || g.Threshold > maxRoots || buffer > maxRoots || int64(ns) < 0 {
		return GC{}, fmt.Errorf("%w: the cycle collector's state at %s", ErrLayout, at)
	}
	g.Enabled, g.Active, g.Protected, g.Time = enabled == 1, active == 1, protected == 1, time.Duration(ns)
	return g, nil
}

// member reads a number of 1, 4 or 8 bytes, and nothing where it isn't known.
func member(r remote.Reader, at remote.Addr, m Member, dst *uint64) error {
	from, ok := at.Add(m.Off)
	if !ok {
		return ErrWild
	}
	switch m.Size {
	case 1:
		v, err := remote.Uint8(r, from)
		*dst = uint64(v)
		return err
	case 4:
		v, err := remote.Uint32(r, from)
		*dst = uint64(v)
		return err
	case 8:
		v, err := remote.Uint64(r, from)
		*dst = v
		return err
	}
	return nil
}

// gcGlobals finds gc_globals, which is a static variable since 7.3: the
// exported functions that return one of its members lead there.
func (th *Thread) gcGlobals(r remote.Reader) (remote.Addr, error) {
	f := &th.rt.Layout.Facts
	if !f.GCRuns.known() {
		return 0, fmt.Errorf("%w: no layout of gc_globals", ErrNoFact)
	}
	var found remote.Addr
	for _, by := range []struct {
		name string
		m    Member
	}{{"gc_protected", f.GCProtected}, {"gc_enabled", f.GCEnabled}} {
		m, ok := th.evaluate(r, by.name)
		if !ok || m.ref == 0 || !by.m.known() {
			continue
		}
		at := m.ref - remote.Addr(by.m.Off)
		if found != 0 && at != found {
			return 0, fmt.Errorf("%w: gc_protected and gc_enabled disagree about gc_globals", ErrLayout)
		}
		found = at
	}
	if found == 0 {
		if g, ok := findGlobal(Options{Lookup: th.rt.symbol}, r, "gc_globals", th.rt.ZTS); ok {
			found = th.address(r, g)
		}
	}
	if found == 0 || found%8 != 0 {
		return 0, fmt.Errorf("%w: gc_globals was not found", ErrNoFact)
	}
	return found, nil
}

// evaluate follows one of the engine's functions, as this thread would run it.
func (th *Thread) evaluate(r remote.Reader, name string) (*machine, bool) {
	at, size, ok := th.rt.symbol(name)
	if !ok || !th.rt.readsCode() {
		return nil, false
	}
	if size == 0 || size > maxFetcher {
		size = maxFetcher
	}
	code := make([]byte, size)
	n, err := r.ReadMemory(code, at)
	if err != nil && n == 0 {
		return nil, false
	}
	m := newMachine(r, th)
	_, ok = m.follow(code[:n], at)
	return m, ok
}

// Output is the state of output buffering.
type Output struct {
	Level      int    // nested buffers, 0 for none
	Size, Used uint64 // of the innermost one, in bytes
}

// maxLevels bounds how deeply output buffers are believed to nest.
const maxLevels = 1 << 16

// Output reads the state of output buffering.
func (th *Thread) Output(r remote.Reader) (Output, error) {
	f := &th.rt.Layout.Facts
	at := th.address(r, th.rt.globals["output_globals"])
	if at == 0 || !f.OutputActive.known() || !f.OutputTop.known() || !f.HandlerUsed.known() {
		return Output{}, fmt.Errorf("%w: output_globals was not found", ErrNoFact)
	}
	var o Output
	var active, level uint64
	err := errors.Join(member(r, at, f.OutputActive, &active), member(r, at, f.OutputTop, &level))
	if err != nil || active == 0 {
		return Output{}, err
	}
	handler := remote.Addr(active)
	if err := errors.Join(member(r, handler, f.HandlerSize, &o.Size), member(r, handler, f.HandlerUsed, &o.Used)); err != nil {
		return Output{}, fmt.Errorf("output buffer: %w", err)
	}
	if level == 0 || level > maxLevels || handler%8 != 0 || o.Used > o.Size || o.Size >= 1<<47 {
		return Output{}, fmt.Errorf("%w: %d output buffers, the innermost at %s with %d of %d bytes", ErrLayout, level, handler, o.Used, o.Size)
	}
	o.Level = int(level)
	return o, nil
}

// AllocatorKind says who serves PHP's memory.
type AllocatorKind string

// The kinds.
const (
	ZendMM  AllocatorKind = "zend_mm" // the Zend memory manager, chunks from mmap
	Malloc  AllocatorKind = "malloc"  // the C library's, because of USE_ZEND_ALLOC=0
	Custom  AllocatorKind = "custom"  // an extension's, or one that tracks
	Storage AllocatorKind = "storage" // the Zend memory manager, chunks from an extension
)

// Allocator is who serves PHP's memory.
type Allocator struct {
	Kind AllocatorKind
	// By is the function that allocates: of a custom heap, or of the chunks of
	// a storage. 0 when there is none to name.
	By remote.Addr
	// Handlers is the name that PHP 5's storage has, "malloc" or "mmap_anon".
	Handlers string
}

// Allocator finds out who serves PHP's memory.
func (th *Thread) Allocator(r remote.Reader) (Allocator, error) {
	f := &th.rt.Layout.Facts
	heap, err := th.heap(r)
	if err != nil {
		return Allocator{}, err
	}
	if th.rt.Layout.PHP5 {
		return th.allocator5(r, heap)
	}
	if !f.HeapCustom.known() || !f.HeapStorage.known() {
		return Allocator{}, fmt.Errorf("%w: no layout of its heap", ErrNoFact)
	}
	var custom, storage uint64
	if err := errors.Join(member(r, heap, f.HeapCustom, &custom), member(r, heap, f.HeapStorage, &storage)); err != nil {
		return Allocator{}, fmt.Errorf("heap: %w", err)
	}
	switch {
	case custom > 2: // ZEND_MM_CUSTOM_HEAP_DEBUG
		return Allocator{}, fmt.Errorf("%w: use_custom_heap is %d", ErrLayout, custom)
	case custom != 0:
		a := Allocator{Kind: Custom}
		if by, err := remote.Pointer(r, heap+remote.Addr(th.customFunctions(r))); err == nil {
			a.By = by
		}
		if at, _, ok := th.rt.symbol("__zend_malloc"); ok && at == a.By {
			a.Kind = Malloc
		}
		return a, nil
	case storage != 0:
		// zend_mm_storage.handlers.chunk_alloc is its first member.
		by, err := remote.Pointer(r, remote.Addr(storage)+remote.Addr(f.StorageHandlers.Off))
		return Allocator{Kind: Storage, By: by}, err
	}
	return Allocator{Kind: ZendMM}, nil
}

// customFunctions is where in the heap the pointer to the allocating function
// is. Distributions patch the heap's end: their getter knows.
func (th *Thread) customFunctions(r remote.Reader) uint64 {
	at, size, ok := th.rt.symbol("zend_mm_get_custom_handlers")
	if !ok || size == 0 || size > maxFetcher || !th.rt.readsCode() {
		return th.rt.Layout.Facts.HeapFunctions.Off
	}
	code := make([]byte, size)
	if err := remote.ReadFull(r, code, at); err != nil {
		return th.rt.Layout.Facts.HeapFunctions.Off
	}
	// void zend_mm_get_custom_handlers(heap, &malloc, &free, &realloc): the
	// first pointer that it loads from the heap behind use_custom_heap.
	for off := 0; off < len(code); {
		if isEndbr64(code[off:]) {
			off += 4
			continue
		}
		in, err := x86asm.Decode(code[off:], 64)
		if err != nil {
			break
		}
		off += in.Len
		if in.Op != x86asm.MOV || in.MemBytes != 8 {
			continue
		}
		if mem, ok := in.Args[1].(x86asm.Mem); ok && mem.Base == x86asm.RDI && mem.Index == 0 && mem.Disp > 0 {
			return uint64(mem.Disp)
		}
	}
	return th.rt.Layout.Facts.HeapFunctions.Off
}

// heap finds alloc_globals.mm_heap, also one that serves nothing itself.
func (th *Thread) heap(r remote.Reader) (remote.Addr, error) {
	if m, ok := th.evaluate(r, "zend_mm_get_heap"); ok {
		if v := m.get(x86asm.RAX); v.kind == constant && v.n != 0 && v.n%8 == 0 {
			return remote.Addr(v.n), nil
		}
	}
	if g, ok := findGlobal(Options{Lookup: th.rt.symbol}, r, "alloc_globals", th.rt.ZTS); ok {
		if heap, err := remote.Pointer(r, th.address(r, g)); err == nil && heap != 0 && heap%8 == 0 {
			return heap, nil
		}
	}
	return 0, ErrNoHeap
}

// allocator5 names the storage of PHP 5's heap.
func (th *Thread) allocator5(r remote.Reader, heap remote.Addr) (Allocator, error) {
	f := &th.rt.Layout.Facts
	if !f.HeapStorage.known() || !f.StorageHandlers.known() || !f.HandlersName.known() {
		return Allocator{}, fmt.Errorf("%w: no layout of its heap", ErrNoFact)
	}
	// struct _zend_mm_heap { int use_zend_alloc; … } (Zend/zend_alloc.c of PHP 5)
	used, err := remote.Uint32(r, heap)
	if err != nil {
		return Allocator{}, fmt.Errorf("heap: %w", err)
	}
	if used == 0 {
		return Allocator{Kind: Malloc}, nil
	}
	at := heap + remote.Addr(f.HeapStorage.Off)
	for _, off := range []uint64{f.StorageHandlers.Off, f.HandlersName.Off} {
		p, err := remote.Pointer(r, at)
		if err != nil {
			return Allocator{}, fmt.Errorf("heap: %w", err)
		}
		at = p + remote.Addr(off)
	}
	p, err := remote.Pointer(r, at)
	if err != nil {
		return Allocator{}, fmt.Errorf("heap: %w", err)
	}
	name, err := cstr(r, p)
	if err != nil {
		return Allocator{}, fmt.Errorf("heap: %w", err)
	}
	return Allocator{Kind: ZendMM, Handlers: name}, nil
}

// Phase says in which part of a request PHP code runs.
type Phase string

// The phases.
const (
	// PhaseMain: the script, and what it calls.
	PhaseMain Phase = "main"
	// PhaseShutdown: the script has ended. Shutdown functions run, or output
	// and session handlers after them; no {main} is below their frames.
	PhaseShutdown Phase = "shutdown"
	// PhaseDestructor: the script has ended, and a destructor runs.
	PhaseDestructor Phase = "destructor"
	// PhaseIdle: no request is in progress.
	PhaseIdle Phase = "idle"
)

// inShutdown is EG_FLAGS_IN_SHUTDOWN (Zend/zend_globals.h).
const inShutdown = 1

// Phase tells by the engine's own flag, and before 7.2, which has none, by the
// outermost frame. It is "" when that can't be told.
func (th *Thread) Phase(r remote.Reader, outermost *Frame) Phase {
	if _, err := th.Glimpse(r); errors.Is(err, ErrNoRequest) {
		return PhaseIdle
	}
	main := outermost != nil && outermost.needsIncluder
	over, known := th.shutdown(r)
	if !known {
		// A server that calls handlers for each request, such as a coroutine
		// engine, has no {main} below them either: only what PHP's own servers
		// do is known.
		over = outermost != nil && !main && th.rt.requestRunsMain()
		known = outermost != nil && (main || over)
	}
	switch {
	case !known:
		return ""
	case over && outermost != nil && outermost.Function == "__destruct":
		return PhaseDestructor
	case over:
		return PhaseShutdown
	case main:
		return PhaseMain
	}
	return ""
}

// shutdown reads EG(flags).
func (th *Thread) shutdown(r remote.Reader) (over, known bool) {
	m := th.rt.Layout.Facts.EGFlags
	// An engine that keeps exception_op elsewhere may keep this elsewhere, too.
	if !m.known() || th.exceptionOp() != th.rt.Layout.EGExceptionOp {
		return false, false
	}
	flags, err := remote.Uint8(r, th.eg+remote.Addr(m.Off))
	return flags&inShutdown != 0, err == nil
}

// requestRunsMain reports whether every request of this server is a script
// that is run from its beginning to its end.
func (rt *Runtime) requestRunsMain() bool {
	switch rt.SAPI {
	case "cli", "fpm-fcgi", "cgi-fcgi", "apache2handler", "litespeed":
		return true
	}
	return false
}
