package observe

import (
	"cmp"
	"context"
	"fmt"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/target"
)

// Core takes one joined stack of every thread that a core file has.
func (o *Observer) Core(ctx context.Context, path string, opt target.CoreOptions) (*capture.Capture, error) {
	c, err := target.OpenCore(path, opt)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	s := &session{mem: c, from: c, pid: c.PID, who: path}
	if err := o.recognise(s, c.Maps); err != nil {
		return nil, c.CutOff(cmp.Or(wanting(c), err))
	}
	if s.runtime() == nil {
		_, err := s.openZend()
		return nil, c.CutOff(cmp.Or(wanting(c), fmt.Errorf("%s: %w", path, err)))
	}
	return s.core(ctx, c)
}

// wanting says what to do when the program of a core is not at hand; nil when it
// is.
func wanting(c *target.Core) error {
	exe, err := c.Exe()
	if err != nil {
		return err
	}
	if err = c.Missing()[exe]; err == nil {
		return nil
	}
	return fmt.Errorf("%s: its program %s: %w; name the right one with --exe, or with --sysroot the folder that has all of its files", c.Name, exe, err)
}

func (s *session) core(ctx context.Context, c *target.Core) (*capture.Capture, error) {
	var snaps []*target.Snapshot
	for i := range c.Threads {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		snap := target.NewSnapshot(c)
		snap.TID, snap.Regs = c.Threads[i].TID, c.Threads[i].Regs
		s.copy(snap, dumpStack)
		snaps = append(snaps, snap)
	}
	s.readAll(snaps, func(*target.Snapshot, *stack.Stack, *walked) {})
	s.describe()
	if c.Signal.Number != 0 {
		s.note("it was ended by %s", c.Signal.Describe())
	}
	if c.Have < c.Want {
		s.note("the core file is cut off: %d of %d bytes are there", c.Have, c.Want)
	}
	for path, err := range c.Missing() {
		if s.code(path) {
			s.note("no names in %s: %v", path, err)
		}
	}
	s.cap.Observation.Engine = "core"
	s.cap.Observation.Ended = "core"
	s.pipe.into(&s.cap)
	s.coreFacts(len(c.Threads))
	return &s.cap, nil
}

// code reports whether frames are in a file.
func (s *session) code(path string) bool {
	for i := range s.pipe.stacks.stacks {
		for _, f := range s.pipe.stacks.stacks[i].Frames {
			if m := s.image().Mappings().Find(f.PC); f.PC != 0 && m != nil && m.Path == path {
				return true
			}
		}
	}
	return false
}

// coreFacts fills in what memory tells; of time it tells nothing.
func (s *session) coreFacts(threads int) {
	rt, c := s.runtime(), &s.cap
	m := map[string]any{"proc.threads": int64(threads), "php.version": rt.Version, "php.sapi": rt.SAPI}
	if th := s.thread(); th != nil {
		s.engineFacts(m, th)
		if op := usualOpcode(c); op != "" {
			m["php.opcode"] = op
		}
	}
	c.Facts = m
}
