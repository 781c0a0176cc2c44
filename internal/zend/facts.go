package zend

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// Request is the web request that a worker is in. A command-line script has
// only a Script.
type Request struct {
	Method string
	URI    string    // as the client has sent it, where the web server tells; its query string may hold secrets
	Script string    // "" once the script has ended, while its shutdown functions run
	Start  time.Time // zero when neither PHP nor Apache has noted it; PHP may have noted it late
}

// ErrNoRequest says that no request is in progress: the worker waits for one.
var ErrNoRequest = errors.New("no request is in progress")

// maxURI bounds a request line's parts in bytes.
const maxURI = 8192

// Request reads the request in progress, or returns ErrNoRequest. It changes
// slowly, so the process need not be stopped. Parts that can't be read are left
// empty and named in the error.
func (th *Thread) Request(r remote.Reader) (Request, error) {
	var q Request
	if th.sg == 0 {
		return q, errors.New("no symbol sapi_globals")
	}
	l := th.rt.Layout
	query := ""
	// A worker that waits for its next request still has pointers into the
	// last one.
	if started, err := remote.Uint8(r, th.sg+remote.Addr(l.SGStarted)); err != nil {
		return q, fmt.Errorf("request: %w", err)
	} else if started == 0 {
		return q, ErrNoRequest
	}
	var errs []error
	for _, f := range []struct {
		dst  *string
		off  uint64
		what string
	}{{&q.Method, l.SGMethod, "method"}, {&q.URI, l.SGURI, "URI"}, {&query, l.SGQuery, "query"}, {&q.Script, l.SGScript, "script"}} {
		p, err := remote.Pointer(r, th.sg+remote.Addr(f.off))
		if err == nil && p != 0 {
			*f.dst, err = remote.CString(r, p, maxURI)
		}
		if err != nil && !errors.Is(err, remote.ErrUnterminated) {
			errs = append(errs, fmt.Errorf("request's %s: %w", f.what, err))
		}
	}
	// Behind a front controller request_info has the script's name for all URIs.
	if uri, err := th.fcgiParam(r, "REQUEST_URI"); err == nil && uri != "" {
		q.URI = uri
	} else if err != nil && !errors.Is(err, ErrNoFact) {
		errs = append(errs, fmt.Errorf("request's URI: %w", err))
	}
	uri, asked, err := th.apache(r)
	if err == nil && uri != "" {
		q.URI = uri
	} else if err != nil && !errors.Is(err, ErrNoFact) {
		errs = append(errs, err)
	}
	// FastCGI gives the path and the query apart.
	if query != "" && !strings.Contains(q.URI, "?") {
		q.URI += "?" + query
	}
	bits, err := remote.Uint64(r, th.sg+remote.Addr(l.SGTime))
	if err != nil {
		errs = append(errs, fmt.Errorf("request's time: %w", err))
	} else {
		q.Start = requestTime(bits)
	}
	if !asked.IsZero() {
		q.Start = asked
	}
	return q, errors.Join(errs...)
}

// Memory is what the Zend memory manager says of its heap, in bytes.
type Memory struct {
	Used, Peak         uint64 // memory_get_usage(false)
	Reserved, RealPeak uint64 // memory_get_usage(true)
	Limit              uint64 // memory_limit; about 2^63 for none
}

// chunkSize is ZEND_MM_CHUNK_SIZE; chunks are aligned to it.
const chunkSize = 2 << 20

// ErrNoHeap says that the Zend memory manager's heap was not found, for
// example because USE_ZEND_ALLOC=0 turned it off.
var ErrNoHeap = errors.New("the Zend memory manager's heap was not found")

// Memory reads the heap's counters. alloc_globals is not exported, but the VM
// stack is allocated from the heap, and every chunk begins with its heap.
func (th *Thread) Memory(r remote.Reader) (Memory, error) {
	l := th.rt.Layout
	stack, err := remote.Pointer(r, th.eg+remote.Addr(l.EGStack))
	if err != nil || stack == 0 {
		return Memory{}, fmt.Errorf("%w: no VM stack: %v", ErrNoHeap, err)
	}
	chunk := stack &^ (chunkSize - 1)
	heap, err := remote.Pointer(r, chunk+remote.Addr(l.ChunkHeap))
	if err != nil {
		return Memory{}, fmt.Errorf("%w: %w", ErrNoHeap, err)
	}
	// The heap itself lives in the first chunk, whose heap it is too.
	main := heap &^ (chunkSize - 1)
	own, err := remote.Pointer(r, main+remote.Addr(l.ChunkHeap))
	if err != nil || own != heap || heap != main+remote.Addr(l.ChunkHeapSlot) {
		return Memory{}, fmt.Errorf("%w: chunk %s, heap %s", ErrNoHeap, chunk, heap)
	}
	var m Memory
	for _, f := range []struct {
		dst *uint64
		off uint64
	}{{&m.Used, l.HeapSize}, {&m.Peak, l.HeapPeak}, {&m.Reserved, l.HeapReal}, {&m.RealPeak, l.HeapRealPeak}, {&m.Limit, l.HeapLimit}} {
		if *f.dst, err = remote.Uint64(r, heap+remote.Addr(f.off)); err != nil {
			return Memory{}, fmt.Errorf("%w: %w", ErrNoHeap, err)
		}
	}
	const page = 4096
	if m.Reserved < chunkSize || m.Reserved%page != 0 || m.Used > m.Reserved || m.RealPeak < m.Reserved {
		return Memory{}, fmt.Errorf("%w: counters %+v can't be", ErrNoHeap, m)
	}
	return m, nil
}
