package symbolize

import (
	"sync"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// Symbolize names the frames of a walk and adds the inlined ones.
func (img *Image) Symbolize(w Walk) Trace {
	t := Trace{End: w.End, Err: w.Err}
	for i := range w.Frames {
		t.Frames = img.expand(t.Frames, &w.Frames[i])
	}
	return t
}

// NameAhead finds the names of the walks' frames, module by module at the same
// time: inflating and parsing their debug files takes longer than all the rest.
func (img *Image) NameAhead(ws []Walk) {
	byModule := make(map[*placed][]*PhysicalFrame)
	for i := range ws {
		for k := range ws[i].Frames {
			f := &ws[i].Frames[k]
			if p := img.find(f.Lookup()); p != nil && !f.Unplaced {
				byModule[p] = append(byModule[p], f)
			}
		}
	}
	var wg sync.WaitGroup
	for p, frames := range byModule {
		m, err := img.load(p)
		if err != nil {
			continue
		}
		wg.Go(func() {
			for _, f := range frames {
				pc := uint64(f.Lookup()) - p.bias
				if fs := m.functions(pc); len(fs) == 0 || fs[len(fs)-1].Name == "" {
					entry := uint64(0)
					if f.Entry != 0 {
						entry = uint64(f.Entry) - p.bias
					}
					_, _ = m.symbolAt(pc, entry)
				}
			}
		})
	}
	wg.Wait()
}

// frameKey is what a physical frame's names depend on.
type frameKey struct {
	pc, entry remote.Addr
	exact     bool
	unplaced  bool
}

// expand appends a physical frame, preceded by the calls inlined into it. A
// loop comes by the same few places thousands of times.
func (img *Image) expand(out []Frame, f *PhysicalFrame) []Frame {
	k := frameKey{f.PC, f.Entry, f.Exact, f.Unplaced}
	img.mu.Lock()
	named, ok := img.named[k]
	img.mu.Unlock()
	if !ok {
		named = img.name(f)
		img.mu.Lock()
		if len(img.named) < maxCached {
			img.named[k] = named
		}
		img.mu.Unlock()
	}
	out = append(out, named...)
	last := &out[len(out)-1]
	regs := f.Regs
	last.How, last.Regs = f.How, &regs
	return out
}

// name finds the names of a physical frame: the inlined calls first.
func (img *Image) name(f *PhysicalFrame) []Frame {
	var out []Frame
	base := Frame{PC: f.PC, How: f.How, Entry: f.Entry}
	p := img.find(f.Lookup())
	if p == nil {
		base.Offset = uint64(f.PC)
		if m, ok := img.generated(f.PC); ok {
			base.Module, base.Offset = GeneratedModule, uint64(f.PC-m.Start)
		}
		return append(out, base)
	}
	base.Module, base.ModulePath = pathBase(p.code.Path), p.code.Path
	base.Offset = uint64(f.PC - p.start)
	m, err := img.load(p)
	if err != nil {
		return append(out, base)
	}
	pc := uint64(f.Lookup()) - p.bias
	if f.Unplaced {
		pc = uint64(f.Entry) - p.bias
		base.PC, base.Offset = f.Entry, 0
		return append(out, img.bySymbol(base, m, p, pc))
	}
	fs := m.functions(pc)
	for i, fn := range fs {
		fr := base
		fr.File, fr.Line = fn.FileRaw, fn.Line // as gdb prints it
		fr.Raw = fn.Name
		if fn.Linkage != "" {
			fr.Raw = fn.Linkage
		}
		fr.Function = readable(fr.Raw)
		if i < len(fs)-1 {
			fr.Inlined, fr.How = true, HowInline
		}
		if fn.Low != 0 {
			if at := remote.Addr(fn.Low + p.bias); f.PC >= at {
				fr.Offset = uint64(f.PC - at)
			} else if f.Entry != 0 { // the function's cold part lies elsewhere
				fr.Offset = uint64(f.PC - f.Entry)
			}
			if fr.Entry == 0 {
				fr.Entry = remote.Addr(fn.Low + p.bias)
			}
		}
		if fr.Raw != "" {
			out = append(out, fr)
			continue
		}
		out = append(out, img.bySymbol(fr, m, p, pc))
	}
	if len(fs) > 0 {
		return out
	}
	return append(out, img.bySymbol(base, m, p, pc))
}

// bySymbol names a frame from the symbol table, or leaves it as module and offset.
func (img *Image) bySymbol(fr Frame, m *Module, p *placed, pc uint64) Frame {
	entry := uint64(0)
	if fr.Entry != 0 {
		entry = uint64(fr.Entry) - p.bias
	}
	s, ok := m.symbolAt(pc, entry)
	if !ok {
		return fr
	}
	fr.Raw = s.Name
	fr.Function = readable(s.Name)
	fr.Offset = uint64(fr.PC) - (s.Value + p.bias)
	if fr.Entry == 0 {
		fr.Entry = remote.Addr(s.Value + p.bias)
	}
	return fr
}

func pathBase(path string) string {
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] == '/' {
			return path[i+1:]
		}
	}
	return path
}

// Lookup finds a symbol by name in the modules for which match is true of the
// base name (nil: all, in address order) and returns its runtime address.
func (img *Image) Lookup(name string, match func(base string) bool) (at remote.Addr, size uint64, ok bool) {
	for _, p := range img.placed {
		if match != nil && !match(pathBase(p.code.Path)) {
			continue
		}
		m, err := img.load(p)
		if err != nil {
			continue
		}
		if s, ok := m.Symbol(name); ok {
			return remote.Addr(s.Value + p.bias), s.Size, true
		}
	}
	return 0, 0, false
}
