package observe

import (
	"context"
	"runtime"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/ptrace"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/target"
	"github.com/phpwhy/phpwhy/symbolize"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// rehearse copies once while the process runs, so that when it is stopped
// neither our memory nor our code is touched for the first time.
func (s *session) rehearse() *target.Snapshot {
	snap := target.NewSnapshot(s.live.Mem)
	for i := range s.live.Maps {
		if m := &s.live.Maps[i]; m.Path == "[stack]" {
			snap.Regs.Arch = remote.Arch(runtime.GOARCH)
			snap.Regs.SetSP(max(m.Start, m.End-firstStack) + 4096)
		}
	}
	s.copy(snap, dumpStack)
	n := snap.Size()
	snap.Reset(s.live.Mem)
	snap.Grow(2 * n)
	return snap
}

// warm reads, while the worker still runs undisturbed, the tables that its
// stacks will be read with. The first stop would wait for them else, and those
// behind it would find the queue full.
func (s *session) warm() {
	names := map[string]*symbolize.MappedModule{stack.Executor: &s.php, "php_execute_script": &s.php}
	if libc, err := s.image().Libc(); err == nil {
		names["mmap"] = &libc
	}
	for name, m := range names {
		if sym, ok := m.Symbol(name); ok {
			m.Warm(sym.Value)
		}
	}
}

// dump freezes the process once and reads every thread.
func (s *session) dump(ctx context.Context) (*capture.Capture, error) {
	var snaps []*target.Snapshot
	spare := s.rehearsed()
	s.facts.wchan = s.live.Wchan(s.live.PID)
	if s.follow != nil {
		s.follow.begin(s)
	}
	undisturbed := quiet()
	s.began = time.Now()
	paused, err := ptrace.Freeze(ctx, s.live.PID, func(ts []ptrace.ThreadStop) error {
		if s.follow != nil {
			s.follow.at = time.Since(s.follow.began)
		}
		for i := range ts {
			if ts[i].Err != nil {
				s.note("thread %d has no stack: %v", ts[i].TID, ts[i].Err)
				continue
			}
			snap := spare
			if spare = nil; snap == nil {
				snap = target.NewSnapshot(s.live.Mem)
			}
			snap.TID, snap.Regs = ts[i].TID, ts[i].Regs
			s.copy(snap, dumpStack)
			if s.follow != nil {
				s.follow.stopped(snap.TID)
			}
			snaps = append(snaps, snap)
		}
		return nil
	})
	undisturbed()
	defer func() { s.spare.put(snaps) }()
	if err != nil || s.live.Replaced() {
		return nil, meanwhile(s.live, err)
	}
	s.facts.frozen = runtime.GOARCH == "amd64" // see proc.CallAt
	s.readAll(snaps, func(snap *target.Snapshot, st *stack.Stack, z *walked) {
		c, err := proc.CallAt(&snap.Regs)
		if err == nil && s.facts.in == nil {
			s.facts.in, s.facts.inTID = &c, snap.TID
		}
		switch {
		case s.follow != nil:
			s.follow.see(s, snap, st, z)
		case err == nil:
			s.pipe.waits.once(s.live, c)
		}
	})
	if s.follow != nil {
		s.follow.end(s.pipe)
	}
	s.describe()
	s.cap.Observation.Engine = "none"
	s.cap.Observation.Ended = "dump"
	s.cap.Observation.PausedUSTotal = paused.Microseconds()
	s.cap.Observation.PausedUSMax = paused.Microseconds()
	s.pipe.into(&s.cap)
	s.facts.end(s, s.ran(), s.follow != nil && s.follow.looks > 1)
	if f := s.follow; f != nil {
		if d, ok := f.unchanged(&s.cap); ok {
			s.cap.Facts["stack.unchanged_s"] = d.Seconds()
		}
	}
	return &s.cap, nil
}

// readAll turns what was copied of every thread at one instant into events, and
// shows those that PHP runs in.
func (s *session) readAll(snaps []*target.Snapshot, php func(*target.Snapshot, *stack.Stack, *walked)) {
	traces := make([]symbolize.Trace, len(snaps))
	walks := make([]symbolize.Walk, len(snaps))
	running, renewed := false, false
	img := s.image()
	for i, snap := range snaps {
		w := img.Unwind(snap.Regs, snap)
		if s.live != nil && !renewed && img.Outdated(&w) { // code was loaded since the last look
			renewed = true
			img = s.refreshImage()
			w = img.Unwind(snap.Regs, snap)
		}
		walks[i] = s.resumers(w, snap, snap)
	}
	img.NameAhead(walks)
	for i := range snaps {
		traces[i] = img.Symbolize(walks[i])
		running = running || runsPHP(&traces[i])
	}
	for i, snap := range snaps {
		withPHP := runsPHP(&traces[i]) || !running && snap.TID == s.pid
		rd := reading{img: s.image(), trace: traces[i]}
		st := s.joined(snap, &rd, nil, withPHP)
		s.pipe.add(capture.Event{Kind: capture.Sample, TID: snap.TID}, st)
		if withPHP {
			php(snap, &st, rd.php)
		}
	}
}
