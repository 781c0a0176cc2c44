package observe

import (
	"errors"
	"slices"

	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/target"
	"github.com/phpwhy/phpwhy/internal/zend"
	"github.com/phpwhy/phpwhy/symbolize"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// copy records what will be read of a stopped thread. It reports whether the
// engine had started: before that there is nothing of PHP.
func (s *session) copy(snap *target.Snapshot, limit int) (engine bool) {
	snap.CopyStack(s.image().Mappings(), limit)
	rt := s.runtime()
	if rt != nil {
		if th, err := rt.Thread(snap, snap.Regs.TLS); err == nil {
			th.Prefetch(snap)
			s.copyFibers(snap, th, limit)
			if s.look.any {
				th.PrefetchValues(snap, s.look.want)
			}
		}
	}
	snap.Freeze()
	return rt != nil
}

func (s *session) unwind(snap *target.Snapshot) symbolize.Trace { return s.unwound(snap, nil).trace }

// unwound unwinds a thread. What is read of PHP on the way is recorded, if rec
// is not nil.
func (s *session) unwound(snap *target.Snapshot, rec *recorder) reading {
	rd := reading{img: s.image()}
	rd.walk = s.resumers(rd.img.Unwind(snap.Regs, snap), snap, rec.over(snap))
	rd.trace = rd.img.Symbolize(rd.walk)
	return rd
}

// runsPHP reports whether a thread is inside the interpreter.
func runsPHP(t *symbolize.Trace) bool {
	for i := range t.Frames {
		if f := &t.Frames[i]; f.Function == stack.Executor && !f.Inlined {
			return true
		}
	}
	return false
}

// thread returns the thread that was last seen running PHP, nil when there is
// none.
func (s *session) thread() *zend.Thread {
	rt := s.runtime()
	if rt == nil {
		return nil
	}
	s.leadMu.Lock()
	lead := s.lead
	s.leadMu.Unlock()
	th, err := rt.Thread(s.mem, lead)
	if err != nil {
		return nil
	}
	return th
}

// walked are a thread's PHP frames as they were read.
type walked struct {
	th     *zend.Thread
	frames []zend.Frame
}

// joined merges a thread's native frames with PHP's, which belong to it only if
// withPHP says so, or, where every thread has its own, if it has any. It leaves PHP's
// frames as they were read in rd. What it reads is recorded, if rec is not nil.
func (s *session) joined(snap *target.Snapshot, rd *reading, rec *recorder, withPHP bool) stack.Stack {
	r := rec.over(snap)
	in := s.natives(rd.img, &rd.trace)
	rt := s.runtime()
	if rt == nil || !withPHP && !rt.ZTS {
		return stack.Join(in)
	}
	th, err := rt.Thread(r, snap.Regs.TLS)
	if err != nil {
		if !errors.Is(err, zend.ErrNoThread) {
			in.PHPErr = err
		}
		return stack.Join(in)
	}
	z := th.Walk(r)
	if len(z.Frames) > 0 {
		s.led(snap.TID, snap.Regs.TLS)
	}
	values := s.look.read(th, snap, z.Frames)
	in.TopCall = func(ed remote.Addr) (bool, bool) { return rt.TopCall(r, ed) }
	s.phpFrames(&in, rt, r, &z)
	for i := range in.PHP {
		in.PHP[i].Values = s.look.shown(values, i)
	}
	st := stack.Join(in)
	s.look.see(&st, values)
	if len(z.Frames) > 0 {
		if name, ok := rt.Frameless(s.mem, r, &z.Frames[0]); ok {
			insertFrameless(&st, name, z.Frames[0].Opcode)
		}
	}
	rd.php = &walked{th, z.Frames}
	return st
}

// natives makes a trace ready to be joined.
func (s *session) natives(img *symbolize.Image, t *symbolize.Trace) stack.Input {
	in := stack.Input{NativeEnd: stack.End(t.End), NativeErr: t.Err, Native: make([]stack.NativeFrame, len(t.Frames))}
	for i := range t.Frames {
		f := &t.Frames[i]
		in.Native[i] = stack.NativeFrame{
			Frame: stack.Frame{
				Kind: stack.Native, Function: f.Function, Raw: f.Raw, Module: f.Module, File: f.File, Line: f.Line,
				PC: f.PC, Offset: f.Offset, Inlined: f.Inlined, How: string(f.How),
			},
			Entry: f.Entry, Regs: f.Regs,
		}
		if f.Function == "" && f.Module == s.php.Name && i+1 < len(t.Frames) {
			in.Native[i].Executes = img.CallsHost(t.Frames[i+1].PC)
		}
	}
	return in
}

// phpFrames adds PHP's frames; r reads the memory that they were read from.
func (s *session) phpFrames(in *stack.Input, rt *zend.Runtime, r remote.Reader, z *zend.Stack) {
	in.PHPErr = z.Err
	in.PHP = make([]stack.PHPFrame, len(z.Frames))
	for i := range z.Frames {
		f := &z.Frames[i]
		in.PHP[i] = stack.PHPFrame{
			Frame: stack.Frame{
				Kind: stack.PHP, Function: f.Function, Class: f.Class, File: f.File, Line: f.Line,
				Internal: f.Internal, Opcode: f.Opcode, Defined: f.Defined, Via: f.Via,
			},
			ExecuteData: f.ExecuteData, Handler: f.Handler, Top: f.Top, LineAt: lineAt(rt, r, f), JITLine: s.jitLine(rt, r, f),
		}
	}
}

// insertFrameless shows the internal function that the innermost PHP code is in,
// though PHP made no frame for it: where it was not called, it would have one.
func insertFrameless(st *stack.Stack, name, opcode string) {
	for i := range st.Frames {
		f := &st.Frames[i]
		if f.Kind != stack.PHP {
			continue
		}
		// Directly in the interpreter it is not called yet, or has returned.
		if f.Internal || f.Opcode != opcode || i < 2 {
			return
		}
		st.Frames = slices.Insert(st.Frames, i, stack.Frame{Kind: stack.PHP, Function: name, Internal: true})
		return
	}
}

func lineAt(rt *zend.Runtime, r remote.Reader, f *zend.Frame) func(remote.Addr) (int, string, bool) {
	if f.Internal {
		return nil
	}
	return func(opline remote.Addr) (int, string, bool) { return rt.LineAt(r, f, opline) }
}

// jitLine reads lines off JIT code, which is read from the running process: it
// does not change once it is written. Oplines are in the snapshot.
func (s *session) jitLine(rt *zend.Runtime, then remote.Reader, f *zend.Frame) func(remote.Addr, bool) (int, string, bool, bool) {
	if f.Internal {
		return nil
	}
	r := remote.ReaderFunc(func(p []byte, at remote.Addr) (int, error) {
		if n, err := then.ReadMemory(p, at); err == nil {
			return n, nil
		}
		return s.mem.ReadMemory(p, at)
	})
	return func(pc remote.Addr, call bool) (int, string, bool, bool) { return rt.JITLine(r, f, pc, call) }
}
