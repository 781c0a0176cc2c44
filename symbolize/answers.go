package symbolize

import (
	"github.com/phpwhy/phpwhy/symbolize/dwinfo"
	"github.com/phpwhy/phpwhy/symbolize/objfile"
	"github.com/phpwhy/phpwhy/symbolize/pack"
)

// answers are what is kept of a module. The format's version is in the key.
type answers struct {
	Funcs   map[uint64][]dwinfo.Func
	Symbols map[string]objfile.Symbol // by symbolKey; an empty name says that there is none
	Structs map[string]map[string]*dwinfo.Struct
}

func newAnswers() answers {
	return answers{make(map[uint64][]dwinfo.Func), make(map[string]objfile.Symbol), make(map[string]map[string]*dwinfo.Struct)}
}

func (a *answers) pack() []byte {
	var w pack.Writer
	w.Length(len(a.Funcs))
	for pc, fs := range a.Funcs {
		w.Number(pc)
		w.Length(len(fs))
		for i := range fs {
			f := &fs[i]
			w.Text(f.Name)
			w.Text(f.Linkage)
			w.Text(f.File)
			w.Text(f.FileRaw)
			w.Number(uint64(f.Line))
			w.Bool(f.Inlined)
			w.Number(f.Low)
			w.Bool(f.External)
		}
	}
	w.Length(len(a.Symbols))
	for key, s := range a.Symbols {
		w.Text(key)
		w.Text(s.Name)
		w.Number(s.Value)
		w.Number(s.Size)
		for _, v := range []bool{s.Func, s.Object, s.Global, s.Weak, s.Dynamic, s.Old} {
			w.Bool(v)
		}
	}
	w.Length(len(a.Structs))
	for key, structs := range a.Structs {
		w.Text(key)
		w.Length(len(structs))
		for name, s := range structs {
			w.Text(name)
			w.Text(s.Name)
			w.Number(s.Size)
			w.Length(len(s.Members))
			for path, m := range s.Members {
				w.Text(path)
				w.Number(m.Offset)
				w.Number(m.Size)
				w.Number(uint64(m.BitOffset))
				w.Number(uint64(m.BitSize))
			}
		}
	}
	return w.Bytes()
}

// unpack is the opposite of pack; false for what is no answers.
func unpack(b []byte) (answers, bool) {
	r := pack.NewReader(b)
	a := newAnswers()
	for range r.Length() {
		pc := r.Number()
		fs := make([]dwinfo.Func, r.Length())
		for i := range fs {
			fs[i] = dwinfo.Func{
				Name: r.Text(), Linkage: r.Text(), File: r.Text(), FileRaw: r.Text(), Line: int(r.Number()),
				Inlined: r.Bool(), Low: r.Number(), External: r.Bool(),
			}
		}
		a.Funcs[pc] = fs
	}
	for range r.Length() {
		key := r.Text()
		a.Symbols[key] = objfile.Symbol{
			Name: r.Text(), Value: r.Number(), Size: r.Number(),
			Func: r.Bool(), Object: r.Bool(), Global: r.Bool(), Weak: r.Bool(), Dynamic: r.Bool(), Old: r.Bool(),
		}
	}
	for range r.Length() {
		key := r.Text()
		n := r.Length()
		structs := make(map[string]*dwinfo.Struct, n)
		for range n {
			name := r.Text()
			s := &dwinfo.Struct{Name: r.Text(), Size: r.Number()}
			members := r.Length()
			s.Members = make(map[string]dwinfo.Member, members)
			for range members {
				path := r.Text()
				s.Members[path] = dwinfo.Member{
					Offset: r.Number(), Size: r.Number(), BitOffset: int(r.Number()), BitSize: int(r.Number()),
				}
			}
			structs[name] = s
		}
		a.Structs[key] = structs
	}
	return a, r.Done()
}
