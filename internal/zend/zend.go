// Package zend reads PHP's own frames out of a process: function, class, file
// and exact line of everything that PHP code is executing.
//
// Contract: all memory comes through a remote.Reader, so that a live process,
// a snapshot and a core file look alike. A name that can't be read is left
// empty with an error; nothing is guessed. The structs' layouts are data:
// read from the binary's DWARF, else from built-in tables by version.
//
// Hazard: every pointer is remote and may be stale, torn or hostile. Walks
// are bounded and notice cycles; strings are bounded.
//
// Non-goal: native frames, and the joining of the two stacks.
package zend

import (
	"errors"
	"fmt"
	"sort"
	"strings"
	"sync/atomic"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// The reasons why a process can't be read as PHP.
var (
	// ErrNotPHP: the process has no Zend engine in it.
	ErrNotPHP = errors.New("it is not PHP (no module in it exports executor_globals)")
	// ErrNoSymbols: the engine is there, but nothing says where in it.
	ErrNoSymbols = errors.New("it is PHP, but its file has no symbol table at all, as static binaries that were stripped: keep or install its symbols")
	// ErrThreadSafe: the engine is thread-safe (ZTS), and its threads' globals
	// can't be found.
	ErrThreadSafe = errors.New("this PHP is thread-safe (ZTS)")
	// ErrArch: the engine's machine code would have to be followed, which is
	// only done on x86-64.
	ErrArch = errors.New("its machine code can't be read on this architecture")
	// ErrNoVersion: there is a Zend engine, but nothing tells its version.
	ErrNoVersion = errors.New("PHP's version can't be told")
	// ErrLayout: what was read can't be PHP frames of that version's layout.
	ErrLayout = errors.New("memory does not look like PHP frames of this version")
	// ErrIncomplete: a table or DWARF lacks a member that is needed.
	ErrIncomplete = errors.New("layout is incomplete")
	// ErrCycle, ErrDepth and ErrWild end a walk of the frames.
	ErrCycle = errors.New("prev_execute_data forms a cycle")
	ErrDepth = fmt.Errorf("more than %d PHP frames", MaxFrames)
	ErrWild  = errors.New("pointer to a PHP frame leads nowhere")
)

// UnsupportedError says that no layout is known for a version.
type UnsupportedError struct {
	Version, Variant string
	Known            []string
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("PHP %s (%s) has no built-in layout, and the binary no DWARF to read it from; known are %s",
		e.Version, e.Variant, strings.Join(e.Known, ", "))
}

func knownVersions() []string {
	ents, err := tables.ReadDir("layouts")
	if err != nil {
		return nil
	}
	seen := make(map[string]bool)
	for _, e := range ents {
		if v, _, ok := strings.Cut(e.Name(), "-nts.json"); ok {
			seen[v] = true
		}
	}
	out := make([]string, 0, len(seen))
	for v := range seen {
		out = append(out, v)
	}
	sort.Strings(out)
	return out
}

// Options are what Open needs to know of the process's modules.
type Options struct {
	// Lookup finds a symbol of the module that contains the Zend engine and
	// returns its runtime address and size.
	Lookup func(name string) (remote.Addr, uint64, bool)
	// Rodata is that module's .rodata, where the version string is.
	Rodata func() ([]byte, error)
	// Types reads DWARF, nil when there is none.
	Types Types
	// Arch is the module's architecture; empty is x86-64.
	Arch remote.Arch
}

// Runtime is the Zend engine of one process.
type Runtime struct {
	Version string // 8.2.36
	ZTS     bool
	Debug   bool
	SAPI    string // cli, fpm-fcgi, apache2handler; "" when unknown
	Layout  *Layout

	arch    remote.Arch
	lookup  func(name string) (remote.Addr, uint64, bool)
	globals map[string]global
	slots   []slot  // where threads keep their globals, with ZTS
	only    *Thread // without
	// exceptionAt is where exception_op was found in executor_globals, 0 as
	// long as nobody has looked.
	exceptionAt atomic.Uint64
}

// globalNames are the globals that are read. The executor's are needed.
var globalNames = []string{"executor_globals", "sapi_globals", "output_globals"}

// Open recognises the engine: its version, its build and its layout.
func Open(o Options, r remote.Reader) (*Runtime, error) {
	rt := &Runtime{arch: o.Arch, lookup: o.Lookup, globals: make(map[string]global)}
	if _, _, ok := o.Lookup("executor_globals"); !ok {
		_, _, offset := o.Lookup("executor_globals_offset")
		_, _, id := o.Lookup("executor_globals_id")
		if rt.ZTS = offset || id; !rt.ZTS {
			return nil, ErrNotPHP
		}
	}
	version, err := findVersion(o, r)
	if err != nil {
		return nil, err
	}
	rt.Version = version.text
	rt.Debug = version.debug
	rt.SAPI = sapiName(o, r)
	for _, name := range globalNames {
		if g, ok := findGlobal(o, r, name, rt.ZTS); ok {
			rt.globals[name] = g
		}
	}
	if rt.ZTS {
		// Until the engine has started, its globals have no place.
		if _, ok := rt.globals["executor_globals"]; !ok {
			return nil, fmt.Errorf("%w: it has not started", ErrThreadSafe)
		}
		if !rt.readsCode() {
			return nil, fmt.Errorf("%w: %w", ErrThreadSafe, ErrArch)
		}
		if rt.slots, err = findSlots(o.Lookup, r); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrThreadSafe, err)
		}
	} else {
		rt.only = &Thread{rt: rt, eg: rt.globals["executor_globals"].at, sg: rt.globals["sapi_globals"].at}
	}
	minor := minorOf(rt.Version)
	if rt.Layout, err = layout(o.Types, minor, rt.ZTS, rt.Debug); err != nil {
		return nil, err
	}
	if !rt.ZTS {
		if err := rt.verified(r, rt.only); err != nil {
			return nil, err
		}
	}
	return rt, nil
}

// readsCode reports whether the engine's machine code can be followed.
func (rt *Runtime) readsCode() bool { return rt.arch == "" || rt.arch == remote.AMD64 }

// symbol looks one up that is only wanted now and then.
func (rt *Runtime) symbol(name string) (remote.Addr, uint64, bool) {
	if rt.lookup == nil {
		return 0, 0, false
	}
	return rt.lookup(name)
}

// layout prefers the binary's own DWARF. DWARF that can't be used is no reason
// to give up while the table for the version is at hand, nor is a missing
// table while there is DWARF.
func layout(t Types, minor string, zts, debug bool) (*Layout, error) {
	table, noTable := builtin(minor, zts, debug)
	if t == nil {
		return table, noTable
	}
	base := table
	if noTable != nil {
		var err error
		if base, err = agreed(minor); err != nil {
			return nil, noTable
		}
	}
	l, err := fromDWARF(t, base)
	if err == nil {
		l.Facts.fillApart(t, table)
		return l, nil
	}
	if noTable != nil {
		return nil, fmt.Errorf("%w; and DWARF: %w", noTable, err)
	}
	return table, nil
}

// minorOf cuts 8.2.36 to 8.2.
func minorOf(v string) string {
	parts := strings.SplitN(v, ".", 3)
	if len(parts) < 2 {
		return v
	}
	return parts[0] + "." + parts[1]
}

func sapiName(o Options, r remote.Reader) string {
	at, _, ok := o.Lookup("sapi_module")
	if !ok {
		return ""
	}
	name, err := remote.Pointer(r, at) // sapi_module_struct.name is its first member
	if err != nil {
		return ""
	}
	s, err := remote.CString(r, name, 64)
	if err != nil {
		return ""
	}
	return s
}
