package zend

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// Slot is what php-fpm notes of one worker in its scoreboard, which the worker
// and its master share. It says when a request was accepted, whether or not PHP
// has asked for the time.
type Slot struct {
	Busy       bool          // a request was accepted, and the worker doesn't wait for the next one
	Requests   uint64        // accepted by this worker so far
	Accepted   time.Duration // the last one: CLOCK_MONOTONIC, as the worker sees it
	AcceptedAt time.Time     // the same on the wall clock, in whole seconds
	Method     string        // "" until the request's parameters were read
}

// ErrNoSlot says that no slot of a scoreboard is the worker's.
var ErrNoSlot = errors.New("php-fpm's scoreboard was not found")

// struct fpm_scoreboard_proc_s is the same on 64 bits from 5.3 to 8.5
// (sapi/fpm/fpm/fpm_scoreboard.h of 5.3.25, 7.0.12 and 8.5, and the DWARF of
// 8.2 and 8.4); what has grown since is the header before the slots, which is
// not read. Bytes of the slot that lie between two members are always zero: the
// memory was cleared.
const (
	slotLock, slotUsed, slotStart, slotPID    = 0, 16, 24, 32
	slotRequests, slotStage, slotAccepted     = 40, 48, 56
	slotDuration, slotAcceptedEpoch, slotLast = 72, 88, 96
	slotURI, slotQuery, slotMethod            = 112, 240, 752
	slotLength, slotScript, slotUser, slotEnd = 768, 776, 1032, 1064

	// enum fpm_request_stage_e begins with 1 before 8.4 has put one in front.
	stageAccepting, stageFinished = 1, 6

	// maxScoreboard is the largest shared memory that is searched, in bytes, and
	// holds the slots of some 7,000 workers. An opcode cache is larger.
	maxScoreboard = 8 << 20
)

// FindSlot searches the memory that a php-fpm worker shares with its master.
// pid is the worker's own number, of its own pid namespace. Nothing says which
// of the shared memories is the scoreboard (its variable is static), so a slot
// must prove itself member by member, and be the only one that does.
func FindSlot(r remote.Reader, maps remote.Mappings, pid int) (remote.Addr, error) {
	var shared []remote.Mapping
	for i := range maps {
		m := &maps[i]
		// mmap(MAP_ANONYMOUS|MAP_SHARED) of fpm_shm_alloc.
		if m.Shared && m.Read && m.Write && m.Deleted && m.Path == "/dev/zero" && m.End-m.Start <= maxScoreboard {
			shared = append(shared, *m)
		}
	}
	// The smallest ones first: what nobody has touched yet becomes memory by being read.
	slices.SortFunc(shared, func(a, b remote.Mapping) int { return int(a.End-a.Start) - int(b.End-b.Start) })
	for i := range shared {
		b := make([]byte, shared[i].End-shared[i].Start)
		if err := remote.ReadFull(r, b, shared[i].Start); err != nil {
			continue
		}
		found := slotsIn(b, pid)
		if len(found) > 1 {
			return 0, fmt.Errorf("%w: %d slots claim to be the worker's", ErrNoSlot, len(found))
		}
		if len(found) == 1 {
			return shared[i].Start + remote.Addr(found[0]), nil
		}
	}
	return 0, fmt.Errorf("%w in %d shared memories", ErrNoSlot, len(shared))
}

// slotsIn finds the offsets of what can be the worker's slot.
func slotsIn(b []byte, pid int) []int {
	var found []int
	for off := 0; off+slotEnd <= len(b); off += 8 {
		if binary.LittleEndian.Uint32(b[off+slotPID:]) != uint32(pid) {
			continue
		}
		if _, err := decodeSlot(b[off:off+slotEnd], pid); err == nil {
			found = append(found, off)
		}
	}
	return found
}

// slotTries bounds how often a slot is read that is being written.
const slotTries = 3

// ReadSlot reads the worker's slot that FindSlot has found.
func ReadSlot(r remote.Reader, at remote.Addr, pid int) (Slot, error) {
	var b [slotEnd]byte
	var s Slot
	var err error
	for range slotTries {
		if err = remote.ReadFull(r, b[:], at); err != nil {
			return Slot{}, fmt.Errorf("scoreboard: %w", err)
		}
		if s, err = decodeSlot(b[:], pid); err == nil && b[slotLock] == 0 {
			return s, nil
		}
	}
	if err == nil {
		err = fmt.Errorf("%w: its slot is being written", ErrNoSlot)
	}
	return Slot{}, err
}

// decodeSlot reads a slot, and refuses what can't be one.
func decodeSlot(b []byte, pid int) (Slot, error) {
	word := func(off int) uint64 { return binary.LittleEndian.Uint64(b[off:]) }
	half := func(off int) uint32 { return binary.LittleEndian.Uint32(b[off:]) }
	fail := func(what string) (Slot, error) {
		return Slot{}, fmt.Errorf("%w: its %s can't be", ErrNoSlot, what)
	}
	switch {
	case word(slotLock) > 1 || word(slotLock+8) != 0:
		return fail("lock")
	case half(slotUsed) != 1 || half(slotUsed+4) != 0:
		return fail("use")
	case half(slotPID) != uint32(pid) || half(slotPID+4) != 0:
		return fail("pid")
	case half(slotStage) > stageFinished || half(slotStage+4) != 0:
		return fail("stage")
	case !epoch(word(slotStart)):
		return fail("start")
	case !terminated(b[slotURI:slotQuery]) || !terminated(b[slotQuery:slotMethod]) || !terminated(b[slotScript:slotUser]) || !terminated(b[slotUser:slotEnd]):
		return fail("text")
	}
	accepted, ok := timeval(b[slotAccepted:])
	last, ok2 := timeval(b[slotLast:])
	_, ok3 := timeval(b[slotDuration:])
	if !ok || !ok2 || !ok3 || accepted > last {
		return fail("clock")
	}
	method, ok := methodOf(b[slotMethod:slotLength])
	if !ok {
		return fail("method")
	}
	s := Slot{Requests: word(slotRequests), Accepted: accepted, Method: method, Busy: half(slotStage) > stageAccepting}
	if s.Requests == 0 {
		if s.Busy || accepted != 0 || word(slotAcceptedEpoch) != 0 {
			return fail("count")
		}
		return s, nil
	}
	if accepted == 0 || s.Requests >= 1<<48 || !epoch(word(slotAcceptedEpoch)) {
		return fail("count")
	}
	s.AcceptedAt = time.Unix(int64(word(slotAcceptedEpoch)), 0)
	return s, nil
}

// epoch reports whether a time_t is one of this century.
func epoch(v uint64) bool { return v > 1e9 && v < 1e11 }

// timeval reads a struct timeval that counts from the machine's start.
func timeval(b []byte) (time.Duration, bool) {
	sec, usec := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
	return time.Duration(sec)*time.Second + time.Duration(usec)*time.Microsecond, sec < 1e9 && usec < 1e6
}

func terminated(b []byte) bool { return bytes.IndexByte(b, 0) >= 0 }

// methodOf reads a request method, which has letters only.
func methodOf(b []byte) (string, bool) {
	n := bytes.IndexByte(b, 0)
	if n < 0 {
		return "", false
	}
	for _, c := range b[:n] {
		if (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && c != '-' && c != '_' {
			return "", false
		}
	}
	return string(b[:n]), true
}
