package zend

import (
	"errors"
	"fmt"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// ErrNoThread says that a thread of a thread-safe PHP has no PHP globals.
var ErrNoThread = errors.New("PHP does not run in this thread")

// Thread is one thread's share of the engine: where its globals are. An engine
// that is not thread-safe has one for the whole process.
type Thread struct {
	rt     *Runtime
	block  remote.Addr // tsrm_tls_entry, 0 without thread safety
	eg, sg remote.Addr
}

// exceptionOp is the offset of exception_op in executor_globals.
func (th *Thread) exceptionOp() uint64 {
	if off := th.rt.exceptionAt.Load(); off != 0 {
		return off
	}
	return th.rt.Layout.EGExceptionOp
}

// verified checks a thread's globals, once for all threads.
func (rt *Runtime) verified(r remote.Reader, th *Thread) error {
	if rt.exceptionAt.Load() != 0 {
		return nil
	}
	off, err := rt.calibrate(r, th.eg)
	if err == nil {
		rt.exceptionAt.Store(off)
	}
	return err
}

// struct _tsrm_tls_entry { void **storage; int count; THREAD_T thread_id; … }
// has been so since 5.2 (TSRM/TSRM.c).
const (
	entryStorage, entryCount, entryThread = 0, 8, 16
	maxResources                          = 4096
)

// global says where one of the engine's globals is.
type global struct {
	at     remote.Addr // without thread safety
	offset uint64      // from the thread's block, since 7.4, 0 when unknown
	id     uint32      // of the resource, 0 when unknown
}

// findGlobal looks a global up under the names that it has in both kinds of
// engine (TSRM/TSRM.h: ZEND_TSRMG_FAST and TSRMG).
func findGlobal(o Options, r remote.Reader, name string, zts bool) (global, bool) {
	var g global
	if !zts {
		at, _, ok := o.Lookup(name)
		return global{at: at}, ok
	}
	if at, _, ok := o.Lookup(name + "_offset"); ok {
		if off, err := remote.Uint64(r, at); err == nil {
			g.offset = off
		}
	}
	if at, _, ok := o.Lookup(name + "_id"); ok {
		if id, err := remote.Uint32(r, at); err == nil {
			g.id = id
		}
	}
	return g, g.offset != 0 || g.id != 0
}

// Thread finds the globals of the thread whose thread pointer is tls: fs_base
// on x86-64. Without thread safety every thread is given the same.
func (rt *Runtime) Thread(r remote.Reader, tls remote.Addr) (*Thread, error) {
	if !rt.ZTS {
		return rt.only, nil
	}
	if tls == 0 {
		return nil, fmt.Errorf("%w: its thread pointer is unknown", ErrNoThread)
	}
	for _, s := range rt.slots {
		for _, block := range s.find(r, tls) {
			// The block says whose it is: pthread_self() is the thread pointer.
			if owner, err := remote.Pointer(r, block+entryThread); err != nil || owner != tls {
				continue
			}
			th := &Thread{rt: rt, block: block}
			if th.eg = th.address(r, rt.globals["executor_globals"]); th.eg == 0 {
				continue
			}
			th.sg = th.address(r, rt.globals["sapi_globals"])
			if err := rt.verified(r, th); err != nil {
				return nil, err
			}
			return th, nil
		}
	}
	return nil, ErrNoThread
}

// address finds one of the thread's globals, 0 when that is not possible.
func (th *Thread) address(r remote.Reader, g global) remote.Addr {
	switch {
	case th.block == 0:
		return g.at
	case g.offset != 0:
		return th.block + remote.Addr(g.offset)
	case g.id == 0:
		return 0
	}
	count, err := remote.Uint32(r, th.block+entryCount)
	if err != nil || count > maxResources || g.id > count {
		return 0
	}
	storage, err := remote.Pointer(r, th.block+entryStorage)
	if err != nil {
		return 0
	}
	at, err := remote.Pointer(r, storage+remote.Addr(g.id-1)*8)
	if err != nil {
		return 0
	}
	return at
}
