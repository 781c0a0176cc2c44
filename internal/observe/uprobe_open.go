package observe

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/phpwhy/phpwhy/internal/perf"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/zend"
	"github.com/phpwhy/phpwhy/symbolize"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// warmNames names the functions that every stack has.
func (s *session) warmNames() {
	img := s.image()
	var w symbolize.Walk
	for _, name := range []string{stack.Executor, "_emalloc", "concat_function", "php_execute_script"} {
		if sym, ok := s.php.Symbol(name); ok {
			w.Frames = append(w.Frames, symbolize.PhysicalFrame{PC: s.php.Runtime(sym.Value), Exact: true, How: symbolize.HowEntry})
		}
	}
	if libc, err := img.Libc(); err == nil {
		for _, name := range []string{"mmap", "mremap", "__libc_start_main"} {
			if sym, ok := libc.Symbol(name); ok {
				w.Frames = append(w.Frames, symbolize.PhysicalFrame{PC: libc.Runtime(sym.Value), Exact: true, How: symbolize.HowEntry})
			}
		}
	}
	img.Symbolize(w)
}

// points finds the places in the very files that are mapped.
func (p *prober) points() (files []*os.File, err error) {
	img := p.s.image()
	for _, b := range p.o.Breakpoints {
		if b.Addr == 0 { // a static program without its name
			return files, fmt.Errorf("%w: %s; take --engine syscall", ErrNoBreakpoint, b.Name)
		}
		m := img.Mappings().Find(b.Addr)
		if m == nil {
			return files, fmt.Errorf("%s at %s: %w", b.Name, b.Addr, remote.ErrUnmapped)
		}
		f, err := p.s.live.OpenMapped(*m)
		if err != nil {
			return files, err
		}
		files = append(files, f)
		pt := perf.Point{File: f, Offset: perf.OffsetIn(m, b.Addr), Name: b.Name}
		entry := pt.Offset
		if n := sizeIn(img, b.Name); n > 0 {
			code := make([]byte, min(n, uint64(m.End-b.Addr)))
			if n, err := f.ReadAt(code, int64(pt.Offset)); err == nil {
				at := perf.Find(code[:n])
				pt.Offset += at.Offset
				p.steps = p.steps || !at.Emulated
			}
		} else {
			p.steps = true
		}
		p.po.Points = append(p.po.Points, pt)
		p.reader.at = append(p.reader.at, b.Addr+remote.Addr(pt.Offset-entry))
	}
	return files, nil
}

// sizeIn is the size of a function that can be left from anywhere in it, else 0:
// musl's code has no table to unwind by, except at a function's entry.
func sizeIn(img *symbolize.Image, name string) uint64 {
	libc, err := img.Libc()
	if err != nil || isMusl(libc.Name) { // or the program has its C library inside
		return 0
	}
	sym, _ := libc.Symbol(name)
	return sym.Size
}

func isMusl(name string) bool { return strings.Contains(name, "musl") || name == "libc.so" }

// open begins to watch, in place of the session before if there was one.
func (p *prober) open() error {
	was := p.p
	if was == nil {
		p.po.PID, p.po.SampleEvery = p.s.live.PID, p.o.SampleEvery
		p.po.Follow = p.follow()
	}
	next, err := perf.Open(p.po)
	if err != nil {
		return err
	}
	p.p = next
	err = p.threads()
	if err == nil && was != nil {
		err = p.retire(was)
	}
	if err == nil {
		err = next.Resume(p.left())
	}
	if err != nil {
		return errors.Join(err, next.Close())
	}
	return nil
}

// allow lets so many hits be copied as fit in half a ring: the other half may
// still be full of those before. A hit that finds no room costs the worker
// nearly as much as one that is copied.
func (p *prober) allow() {
	if p.p.Allowed() == 0 && p.left() > 0 {
		p.skipped = true
	}
	p.p.Allow(p.left())
}

// left is how many hits are to be copied next.
func (p *prober) left() int {
	n := max(1, p.p.Room()/2)
	if p.o.MaxStops > 0 {
		n = min(n, p.o.MaxStops-p.reader.stops)
	}
	return n
}

// follow is what to copy of PHP's frames, nil where that can't be said.
func (p *prober) follow() *perf.Follow {
	rt := p.s.runtime()
	if rt == nil {
		return nil
	}
	if rt.ZTS {
		p.s.phpThreads(rt) // which checks the layout
	}
	c, ok := rt.Any().Chain()
	if !ok {
		p.s.note("the uprobe engine shows no PHP frames of PHP 5; take --engine hwbp or int3")
		return nil
	}
	if rt.ZTS {
		c.Head = 0 // each thread has its own
	}
	return &perf.Follow{
		Head: c.Head, Extra: c.Before, NodeSize: c.Size, DescSize: c.FuncSize,
		Next: c.Prev, Desc: c.Func, A: c.Opline, B: c.This, Flags: c.CallInfo,
	}
}

// threads has the clock watch all threads. The breakpoints are of the whole
// process: no thread is unseen by them, however new it is.
func (p *prober) threads() error {
	tids, err := p.s.live.Threads()
	if err != nil {
		return err
	}
	if rt := p.s.runtime(); rt != nil && rt.ZTS {
		if err := p.heads(rt); err != nil {
			return err
		}
	}
	return p.p.Watch(tids)
}

// heads tells where the threads keep their frames.
func (p *prober) heads(rt *zend.Runtime) error {
	if err := p.s.live.Refresh(); err != nil {
		return err
	}
	known := make(map[int]*probedThread)
	for _, t := range p.s.phpThreads(rt) {
		th, err := rt.Thread(p.s.live.Mem, t.tls)
		if err != nil {
			continue // it has ended
		}
		c, _ := th.Chain()
		known[t.tid] = &probedThread{th, t.tls}
		if err := p.p.SetHead(t.tid, c.Head); err != nil {
			return err
		}
	}
	for tid := range p.reader.threads {
		if known[tid] == nil {
			if err := p.p.SetHead(tid, 0); err != nil {
				return err
			}
		}
	}
	p.reader.threads = known
	return nil
}
