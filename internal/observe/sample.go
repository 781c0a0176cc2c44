package observe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/target"
	"github.com/phpwhy/phpwhy/internal/zend"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

const (
	// sampleTries bounds how often a stack that changes is read, which takes
	// some 20 to 50 ms.
	sampleTries = 1000
	// descriptorTail is how much of a mapping's end is searched for a thread's
	// descriptor, in bytes: it lies at the end of the thread's stack, below its
	// thread-local storage.
	descriptorTail = 64 << 10
	// In glibc's and musl's descriptors the thread pointer points at itself;
	// glibc has it a second time, and the thread's number
	// (struct pthread, nptl/descr.h).
	descriptorSelf, descriptorTID = 16, 0x2d0
)

// Sample reads the PHP frames of a process without stopping it, also when
// another tracer holds it. There are no native frames: registers can't be read.
func (o *Observer) Sample(ctx context.Context, pid int) (*capture.Capture, error) {
	live, err := target.Open(pid)
	if err != nil {
		return nil, err
	}
	defer live.Close()
	s, err := o.open(live)
	if err != nil {
		return nil, err
	}
	return s.sample(ctx)
}

func (s *session) sample(ctx context.Context) (*capture.Capture, error) {
	rt := s.runtime()
	threads := []phpThread{{tid: s.live.PID}}
	if rt.ZTS {
		threads = s.phpThreads(rt)
		if len(threads) == 0 {
			s.note("no thread with PHP globals was found; phpwhy dump without --no-stop asks each thread")
		}
	}
	torn := 0
	for _, p := range threads {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		th, err := rt.Thread(s.live.Mem, p.tls)
		if err != nil {
			continue // it has ended
		}
		z, n := th.Sample(s.live.Mem, sampleTries)
		torn += n
		if rt.ZTS && len(z.Frames) == 0 && z.Err == nil {
			continue // PHP does not run in it
		}
		s.led(p.tid, p.tls)
		s.pipe.add(capture.Event{Kind: capture.Sample, TID: p.tid}, phpOnly(&z))
		if c, err := s.live.Blocked(p.tid); err == nil && len(z.Frames) > 0 {
			s.pipe.waits.once(s.live, c)
		}
	}
	if s.live.Replaced() || !s.live.Alive() {
		return nil, meanwhile(s.live, nil)
	}
	s.note("read without stopping the worker: PHP frames only, and the innermost line may be one it has left since")
	if torn > 0 {
		s.note("the stack changed while it was read and was read again: %d times", torn)
	}
	s.describe()
	s.cap.Observation.Engine = "none"
	s.cap.Observation.Ended = "dump"
	s.pipe.into(&s.cap)
	s.facts.end(s, 0, false)
	return &s.cap, nil
}

// phpOnly is a stack without native frames.
func phpOnly(z *zend.Stack) stack.Stack {
	out := stack.Stack{End: stack.Root}
	if z.Err != nil {
		out.End, out.Error = stack.Truncated, z.Err.Error()
	}
	for i := range z.Frames {
		f := &z.Frames[i]
		out.Frames = append(out.Frames, stack.Frame{
			Kind: stack.PHP, Function: f.Function, Class: f.Class, File: f.File, Line: f.Line,
			Internal: f.Internal, Opcode: f.Opcode, Defined: f.Defined, Via: f.Via,
		})
	}
	return out
}

// phpThread is a thread of a thread-safe PHP.
type phpThread struct {
	tid int
	tls remote.Addr
}

// phpThreads finds the threads that have PHP globals without asking them: a
// thread's descriptor points at itself, and PHP's block says whose it is.
func (s *session) phpThreads(rt *zend.Runtime) []phpThread {
	tids, err := s.live.ThreadsInside()
	if err != nil {
		return nil
	}
	var out []phpThread
	for i := range s.live.Maps {
		m := &s.live.Maps[i]
		if m.Path != "" && m.Path[0] == '/' || !m.Write || m.End <= m.Start {
			continue
		}
		n := min(uint64(m.End-m.Start), descriptorTail)
		b := make([]byte, n)
		at := m.End - remote.Addr(n)
		if err := remote.ReadFull(s.live.Mem, b, at); err != nil {
			continue
		}
		for off := 0; off+descriptorSelf+8 <= len(b); off += 8 {
			tls := at + remote.Addr(off)
			if remote.Addr(binary.LittleEndian.Uint64(b[off:])) != tls {
				continue
			}
			if _, err := rt.Thread(s.live.Mem, tls); errors.Is(err, zend.ErrNoThread) || err != nil {
				continue
			}
			p := phpThread{tls: tls, tid: s.live.PID}
			if own, err := remote.Uint32(s.live.Mem, tls+descriptorTID); err == nil {
				if tid, ok := tids[int(own)]; ok {
					p.tid = tid
				}
			}
			out = append(out, p)
		}
	}
	return out
}

// outermostNote tells of the frames that were too many to be copied.
func outermostNote(d *zend.Depth) string {
	n := fmt.Sprintf("%d", d.Frames)
	if !d.Exact {
		n = "at least " + n
	}
	s := "the stack has " + n + " PHP frames; the outermost are "
	for i := 0; i < len(d.Outer); {
		f := &d.Outer[i]
		j := i + 1
		for j < len(d.Outer) && d.Outer[j].Function == f.Function && d.Outer[j].Class == f.Class && d.Outer[j].Line == f.Line {
			j++
		}
		if i > 0 {
			s += ", "
		}
		name := f.Function + "()"
		if f.Class != "" {
			name = f.Class + "::" + name
		}
		if f.File != "" {
			name += fmt.Sprintf(" at %s:%d", f.File, f.Line)
		}
		if s += name; j-i > 1 {
			s += fmt.Sprintf(" (%d times)", j-i)
		}
		i = j
	}
	return s
}
