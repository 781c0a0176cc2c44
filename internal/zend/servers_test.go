package zend

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// board is shared memory with one slot of a worker that has a request.
func board(pid int) (b []byte, slot []byte) {
	b = make([]byte, 8192)
	slot = b[144+1168:] // the second one, behind 8.4's header
	fillSlot(slot, pid)
	return b, slot
}

func fillSlot(slot []byte, pid int) {
	put := func(off int, v uint64) { binary.LittleEndian.PutUint64(slot[off:], v) }
	put(slotUsed, 1)
	put(slotStart, 1_700_000_000)
	put(slotPID, uint64(pid))
	put(slotRequests, 7)
	put(slotStage, 4)
	put(slotAccepted, 5000)
	put(slotAccepted+8, 250_000)
	put(slotAcceptedEpoch, 1_700_000_100)
	put(slotLast, 5000)
	put(slotLast+8, 300_000)
	copy(slot[slotURI:], "/index.php")
	copy(slot[slotMethod:], "GET")
}

func shared(b []byte) (remote.Reader, remote.Mappings) {
	const at = 0x7f0000000000
	r := remote.ReaderFunc(func(p []byte, from remote.Addr) (int, error) {
		if from < at || from >= at+remote.Addr(len(b)) {
			return 0, remote.ErrUnmapped
		}
		return copy(p, b[from-at:]), nil
	})
	return r, remote.Mappings{{Start: at, End: at + remote.Addr(len(b)), Read: true, Write: true, Shared: true, Path: "/dev/zero", Deleted: true}}
}

func TestASlotMustProveItself(t *testing.T) {
	const pid = 4242
	put := func(off int, v uint64) func([]byte) {
		return func(slot []byte) { binary.LittleEndian.PutUint64(slot[off:], v) }
	}
	for name, spoil := range map[string]func(slot []byte){
		"another worker's":             put(slotPID, pid+1),
		"bytes beside the pid":         put(slotPID, pid|1<<32),
		"unused":                       put(slotUsed, 0),
		"a lock that is none":          put(slotLock, 2),
		"an unknown stage":             put(slotStage, 7),
		"no start":                     put(slotStart, 0),
		"a start in microseconds":      put(slotStart, 1_700_000_000_000_000),
		"more microseconds than there": put(slotAccepted+8, 1_000_000),
		"a wall clock's time":          put(slotAccepted, 1_700_000_100),
		"a stage before its request":   put(slotLast, 4000),
		"a request never accepted":     put(slotAccepted, 5001),
		"no wall clock":                put(slotAcceptedEpoch, 0),
		"no count":                     put(slotRequests, 0),
		"a method of other characters": func(slot []byte) { copy(slot[slotMethod:], "G\x01T") },
		"a URI without an end": func(slot []byte) {
			for i := slotURI; i < slotQuery; i++ {
				slot[i] = 'a'
			}
		},
		"two of them": func(slot []byte) { fillSlot(slot[1168:], pid) },
	} {
		t.Run(name, func(t *testing.T) {
			b, slot := board(pid)
			r, maps := shared(b)
			at, err := FindSlot(r, maps, pid)
			if err != nil {
				t.Fatalf("as it should be: %v", err)
			}
			if s, err := ReadSlot(r, at, pid); err != nil || !s.Busy || s.Requests != 7 || s.Method != "GET" || s.Accepted.Milliseconds() != 5_000_250 {
				t.Fatalf("as it should be: %+v, %v", s, err)
			}
			spoil(slot)
			if at, err := FindSlot(r, maps, pid); !errors.Is(err, ErrNoSlot) {
				t.Errorf("found at %s (%v)", at, err)
			}
		})
	}
}

func TestASlotThatIsBeingWrittenIsNotBelieved(t *testing.T) {
	b, slot := board(4242)
	r, maps := shared(b)
	at, err := FindSlot(r, maps, 4242)
	if err != nil {
		t.Fatal(err)
	}
	slot[slotLock] = 1
	if s, err := ReadSlot(r, at, 4242); !errors.Is(err, ErrNoSlot) {
		t.Errorf("got %+v (%v)", s, err)
	}
}

func TestOnlySharedAnonymousMemoryIsSearched(t *testing.T) {
	for name, change := range map[string]func(*remote.Mapping){
		"private": func(m *remote.Mapping) { m.Shared = false },
		"a file":  func(m *remote.Mapping) { m.Path, m.Deleted = "/var/lib/x", false },
		"large":   func(m *remote.Mapping) { m.End = m.Start + maxScoreboard + 4096 },
	} {
		t.Run(name, func(t *testing.T) {
			b, _ := board(4242)
			_, maps := shared(b)
			change(&maps[0])
			r := remote.ReaderFunc(func([]byte, remote.Addr) (int, error) {
				t.Error("it was read")
				return 0, remote.ErrUnmapped
			})
			if _, err := FindSlot(r, maps, 4242); !errors.Is(err, ErrNoSlot) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// fcgiHeap lays a FastCGI request out, whose environment has some variables.
func fcgiHeap(t *testing.T, version string, env [][2]string) (*heap, *Thread) {
	l, err := builtin(version, false, false)
	if err != nil {
		t.Fatal(err)
	}
	h := newHeap(t, l)
	sg := h.alloc(1024)
	request := h.alloc(fcgiEnv + fcgiSlots*8)
	h.ptr(sg, sgContext, request)
	cstr := func(s string) remote.Addr {
		at := h.alloc(uint64(len(s)) + 1)
		for i := range len(s) {
			h.mem[at+remote.Addr(i)] = s[i]
		}
		return at
	}
	table := h.alloc(72)
	if l.PHP5 {
		h.ptr(request, fcgi5Env, table)
	} else {
		h.put(request, fcgiHasEnv, 4, 1)
	}
	for _, kv := range env {
		if l.PHP5 {
			b := h.alloc(bucket5Size)
			h.put(b, bucket5Length, 4, uint64(len(kv[0])+1))
			h.ptr(b, bucket5Key, cstr(kv[0]))
			data := h.alloc(8)
			h.ptr(data, 0, cstr(kv[1]))
			h.ptr(b, bucket5Data, data)
			first, _ := remote.Pointer(h, table+ht5Head)
			h.ptr(b, bucket5Next, first)
			h.ptr(table, ht5Head, b)
			continue
		}
		b := h.alloc(fcgiBucketSize)
		hash := fcgiHashOf(kv[0])
		slot := request + fcgiEnv + remote.Addr(hash%fcgiSlots)*8
		h.put(b, fcgiHash, 4, uint64(hash))
		h.put(b, fcgiVarLen, 4, uint64(len(kv[0])))
		h.ptr(b, fcgiVar, cstr(kv[0]))
		h.put(b, fcgiValLen, 4, uint64(len(kv[1])))
		h.ptr(b, fcgiVal, cstr(kv[1]))
		first, _ := remote.Pointer(h, slot)
		h.ptr(b, fcgiNext, first)
		h.ptr(slot, 0, b)
	}
	return h, &Thread{rt: &Runtime{Layout: l, SAPI: "fpm-fcgi"}, eg: egAt, sg: sg}
}

func TestVariablesOfTheFastCGIEnvironment(t *testing.T) {
	env := [][2]string{{"SCRIPT_NAME", "/index.php"}, {"REQUEST_URI", "/real?x=1"}, {"REQUEST_XRI", "/same/hash"}, {"HTTP_HOST", "h"}}
	for _, version := range []string{"5.6", "7.0", "7.4", "8.2", "8.5"} {
		t.Run(version, func(t *testing.T) {
			h, th := fcgiHeap(t, version, env)
			for _, kv := range env {
				if got, err := th.fcgiParam(h, kv[0]); err != nil || got != kv[1] {
					t.Errorf("%s is %q (%v), want %q", kv[0], got, err, kv[1])
				}
			}
			if got, err := th.fcgiParam(h, "REMOTE_ADDR"); !errors.Is(err, ErrNoFact) {
				t.Errorf("a variable that is not there is %q (%v)", got, err)
			}
			// php-cgi without FastCGI, and a server whose context is something else.
			for _, context := range []remote.Addr{0, 1, 0x7fff00000000, h.alloc(16384)} {
				h.ptr(th.sg, sgContext, context)
				if got, err := th.fcgiParam(h, "REQUEST_URI"); err == nil {
					t.Errorf("with the context %s the URI is %q", context, got)
				}
			}
			th.rt.SAPI = "apache2handler"
			if got, err := th.fcgiParam(h, "REQUEST_URI"); !errors.Is(err, ErrNoFact) {
				t.Errorf("mod_php has a FastCGI variable %q (%v)", got, err)
			}
		})
	}
}

func TestARequestOfApaches(t *testing.T) {
	for _, version := range []string{"5.6", "8.2"} {
		h, th := fcgiHeap(t, version, nil)
		th.rt.SAPI = "apache2handler"
		text := func(s string) remote.Addr {
			at := h.alloc(uint64(len(s)) + 1)
			for i := range len(s) {
				h.mem[at+remote.Addr(i)] = s[i]
			}
			return at
		}
		context, rec := h.alloc(64), h.alloc(736)
		h.ptr(th.sg, sgContext, context)
		h.ptr(context, apacheRequest, rec)
		method := text("GET")
		h.ptr(rec, recMethod, method)
		h.ptr(rec, recLine, text("GET /real?x=1 HTTP/1.1"))
		h.put(rec, recTime, 8, 1_700_000_000_123_456)
		if uri, at, err := th.apache(h); err == nil {
			t.Errorf("%s: with another method's pointer it is %q at %s", version, uri, at)
		}
		h.ptr(th.sg, th.rt.Layout.SGMethod, method)
		uri, at, err := th.apache(h)
		if err != nil || uri != "/real?x=1" || at.UnixMicro() != 1_700_000_000_123_456 {
			t.Errorf("%s: %q at %s (%v)", version, uri, at, err)
		}
		// A page for an error is another request on the same line.
		h.ptr(rec, recLine, text("POST /real HTTP/1.1"))
		if uri, at, err := th.apache(h); err != nil || uri != "" || at.IsZero() {
			t.Errorf("%s: %q at %s (%v)", version, uri, at, err)
		}
		h.put(rec, recTime, 8, 17)
		if uri, at, err := th.apache(h); err == nil {
			t.Errorf("%s: %q at %s", version, uri, at)
		}
	}
}

func TestAFastCGIEnvironmentThatLeadsInCirclesEnds(t *testing.T) {
	for _, version := range []string{"5.6", "8.2"} {
		h, th := fcgiHeap(t, version, [][2]string{{"REQUEST_XRI", "/"}})
		for at := range h.mem {
			if v, err := remote.Uint32(h, at); at%8 == 0 && err == nil && version == "8.2" && v == fcgiHashOf("REQUEST_XRI") {
				h.ptr(at, fcgiNext, at)
			}
			if v, err := remote.Uint32(h, at+bucket5Length); at%16 == 0 && err == nil && version == "5.6" && v == uint32(len("REQUEST_XRI")+1) {
				h.ptr(at, bucket5Next, at)
			}
		}
		if got, err := th.fcgiParam(h, "REQUEST_URI"); err == nil {
			t.Errorf("%s: got %q", version, got)
		}
	}
}

// FuzzSlot: whatever the shared memory holds, what is found is the worker's by
// its own words, and nothing panics.
func FuzzSlot(f *testing.F) {
	b, _ := board(4242)
	f.Add(b, uint64(1))
	f.Add(b[:200], uint64(2))
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		for range len(b) / 64 {
			b[rnd.IntN(len(b))] ^= byte(1 << rnd.IntN(8))
		}
		r, maps := shared(b)
		at, err := FindSlot(r, maps, 4242)
		if err != nil {
			return
		}
		if n, err := remote.Uint32(r, at+slotPID); err != nil || n != 4242 {
			t.Errorf("the slot at %s is of %d (%v)", at, n, err)
		}
		if s, err := ReadSlot(r, at, 4242); err == nil && s.Busy && s.Accepted == 0 {
			t.Errorf("%+v", s)
		}
	})
}
