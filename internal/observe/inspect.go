package observe

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/target"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// Inspection is what a process shows of itself while it runs on.
type Inspection struct {
	Target capture.Target
	Engine string // the module with the Zend engine
	Libc   Libc
	// Deleted are the files with code that it has mapped and that are no longer
	// there, or another file by now: an upgrade came after its start.
	Deleted []string
	Xdebug  bool
	// JIT: opcache has a buffer for machine code, which opcache.jit=off leaves
	// empty.
	JIT bool
}

// Libc is the C library of a process.
type Libc struct {
	Kind    string // glibc, musl; "" when it has none of its own, as a static program
	Name    string // of its file
	Symbols string // dwarf, symtab or dynsym
	// Found and Missing are the functions to stop at. At is where the first one
	// found begins.
	Found, Missing []string
	At             remote.Addr
}

// Inspect looks at a process without stopping it. What was found out until an
// error is valid together with it.
func (o *Observer) Inspect(pid int, functions []string) (Inspection, error) {
	var in Inspection
	live, err := target.Open(pid)
	if err != nil {
		return in, err
	}
	defer live.Close()
	in.mapped(live.Maps)
	in.Target.PID, in.Target.Cmdline = pid, live.Cmdline()
	in.Target.Exe, _ = live.Exe()
	s, err := o.openStarting(live)
	if err != nil {
		return in, err
	}
	s.describe()
	in.Target, in.Engine = s.cap.Target, s.php.Name
	in.libc(s, functions)
	if s.runtime() == nil {
		_, err = s.openZend()
	}
	return in, err
}

// mapped tells what the mappings alone give away.
func (in *Inspection) mapped(maps remote.Mappings) {
	for i := range maps {
		m := &maps[i]
		if !m.Exec {
			continue
		}
		in.Xdebug = in.Xdebug || filepath.Base(m.Path) == "xdebug.so"
		switch {
		case m.Path == "/dev/zero" && m.Shared:
			in.JIT = true // shared anonymous memory: opcache's, the only such with code
		case m.Deleted && strings.HasPrefix(m.Path, "/") && !memfd(m.Path):
			if !slices.Contains(in.Deleted, m.Path) {
				in.Deleted = append(in.Deleted, m.Path)
			}
		}
	}
}

// memfd reports whether a path names memory that never had a file.
func memfd(path string) bool {
	return strings.HasPrefix(path, "/memfd:") || strings.HasPrefix(path, "/SYSV") || strings.HasPrefix(path, "/dev/")
}

func (in *Inspection) libc(s *session, functions []string) {
	m, err := s.image().Libc()
	if err != nil {
		in.Libc.Missing = functions
		return
	}
	l := &in.Libc
	l.Kind, l.Name, l.Symbols = in.Target.Libc, m.Name, m.SymbolSource()
	for _, name := range functions {
		sym, ok := m.Symbol(name)
		if !ok || !sym.Func {
			l.Missing = append(l.Missing, name)
			continue
		}
		if len(l.Found) == 0 {
			l.At = m.Runtime(sym.Value)
		}
		l.Found = append(l.Found, name)
	}
}
