package observe

import (
	"maps"
	"slices"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/target"
)

// following carries over from one look at a worker to the next what proves that a
// thread is still in the same call and waits for the same: a look by itself is one
// moment, and says nothing of how long it lasts.
type following struct {
	began time.Time // of the first look
	at    time.Duration
	looks int
	waits waitTracker
	same  sameCall
	// counts are the threads' switches as read at this look.
	counts map[int]uint64
	shown  map[int]bool // threads that this look has shown
	only   []stack.Frame
	since  time.Duration // of only, the stack of a worker with one thread
	whole  bool          // only is there
}

// begin prepares the next look: what is read while the worker stands still has to be
// open before. These are the main thread and those that were seen running PHP.
func (f *following) begin(s *session) {
	if f.looks == 0 {
		f.began = time.Now()
	}
	f.looks++
	f.waits.locks = s.locks
	f.waits.longest, f.same.most, f.same.seen = nil, 0, false
	if f.counts == nil {
		f.counts, f.shown = make(map[int]uint64), make(map[int]bool)
	}
	clear(f.counts)
	clear(f.shown)
	f.waits.open(s.live.Process, s.live.PID)
	s.leadMu.Lock()
	defer s.leadMu.Unlock()
	for _, tid := range slices.Sorted(maps.Keys(s.leads)) {
		f.waits.open(s.live.Process, tid)
	}
}

// stopped takes a thread that stands still. It only reads a number.
func (f *following) stopped(tid int) {
	if c := f.waits.counters[tid]; c != nil {
		if n, ok := c.Read(); ok {
			f.counts[tid] = n
		}
	}
}

// see takes a thread in which PHP runs; z are its PHP frames, nil for none.
func (f *following) see(s *session, snap *target.Snapshot, st *stack.Stack, z *walked) {
	f.shown[snap.TID] = true
	var now wait
	now.switches, now.counted = f.counts[snap.TID]
	if z != nil && len(z.frames) > 0 {
		now.php, now.phpKnown = z.th.CallState(snap, z.frames)
		f.same.see(snap.TID, f.at, now.php, now.phpKnown)
	}
	f.waits.look(s.live, snap, st, f.at, now)
}

// end hands over to the pipeline what this look has found.
func (f *following) end(p *pipeline) {
	gone := func(tid int) bool { return !f.shown[tid] }
	maps.DeleteFunc(f.waits.threads, func(tid int, _ *wait) bool { return gone(tid) })
	maps.DeleteFunc(f.same.threads, func(tid int, _ *lasting) bool { return gone(tid) })
	p.waits.longest, p.same.most, p.same.seen = f.waits.longest, f.same.most, f.same.seen
}

// unchanged is for how long a worker with one thread has had the stack that it has;
// false at the first look.
func (f *following) unchanged(c *capture.Capture) (d time.Duration, known bool) {
	if len(c.Events) != 1 {
		f.only, f.whole = nil, false
		return 0, false
	}
	now := c.Stacks[c.Events[0].Stack].Frames
	was := f.whole
	if !was || !slices.EqualFunc(f.only, now, samePlace) {
		f.since = f.at
	}
	f.only, f.whole = now, true
	return f.at - f.since, was
}

// samePlace reports whether two frames are at one place of the code.
func samePlace(a, b stack.Frame) bool {
	return a.Kind == b.Kind && a.PC == b.PC && a.Function == b.Function && a.Class == b.Class && a.File == b.File && a.Line == b.Line
}

func (f *following) close() { f.waits.close() }
