package observe

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/ptrace"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/target"
	"github.com/phpwhy/phpwhy/internal/zend"
	"github.com/phpwhy/phpwhy/symbolize"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// memory is what a session reads: a process's, or a core's.
type memory interface {
	remote.Reader
	target.Source
}

// origin is where its files are, and what it is called.
type origin interface {
	Exe() (string, error)
	Cmdline() string
	OpenMapped(m remote.Mapping) (*os.File, error)
	OpenInRoot(path string) (*os.File, error)
}

// session is one process under observation, or what a core has of one.
type session struct {
	live  *target.Live // nil for a core
	mem   memory
	from  origin
	pid   int
	who   string // for messages: "process 4242", or the core's name
	cache *symbolize.Cache
	known *structs
	locks *proc.Locks
	peers *proc.Peers
	php   symbolize.MappedModule // the module with the Zend engine

	mu  sync.Mutex // guards img, which is made anew when modules are loaded
	img *symbolize.Image

	// rt is nil until the engine has started, in a command's first moments.
	rtMu  sync.Mutex
	rt    *zend.Runtime
	types *dwarfTypes

	// The thread pointers of the threads that were seen running PHP, and of
	// the last one.
	leadMu sync.Mutex
	leads  map[int]remote.Addr
	lead   remote.Addr

	pipe  *pipeline
	look  *looker
	facts facts
	since time.Time // when facts began to count; zero for a single look
	began time.Time // when the worker was about to be stopped
	// follow is what is kept between a Worker's looks; nil for a single one.
	follow *following
	spare  *spares     // nil for a single look
	boards boardFinder // of php-fpm
	cap    capture.Capture
	first  capture.Target // as it was before the observation
}

// open recognises a running PHP.
func (o *Observer) open(live *target.Live) (*session, error) {
	s, err := o.openStarting(live)
	if err != nil {
		return nil, err
	}
	if s.runtime() == nil {
		_, err := s.openZend()
		return nil, meanwhile(live, fmt.Errorf("%s: %w", s.who, err))
	}
	return s, nil
}

// openStarting recognises the modules of a PHP that may not have run yet.
func (o *Observer) openStarting(live *target.Live) (*session, error) {
	s := &session{live: live, mem: live.Mem, from: live, pid: live.PID, who: fmt.Sprintf("process %d", live.PID)}
	if err := o.recognise(s, live.Maps); err != nil {
		return nil, meanwhile(live, err)
	}
	return s, nil
}

// meanwhile says why a process's files could not be read, if that is because it
// has ended or has become another program since they were listed: they are then
// as if they had never been there.
func meanwhile(live *target.Live, err error) error {
	e := &proc.Error{PID: live.PID, What: "read the files of process"}
	switch {
	case live.Replaced(): // whose memory is as if it had ended
		e.Err, e.Advice = proc.ErrReplaced, "run phpwhy again if it still hangs"
	case errors.Is(err, proc.ErrNoProcess):
		return err
	case !live.Alive():
		e.Err, e.Advice = proc.ErrNoProcess, "it ended meanwhile"
	default:
		return err
	}
	return e
}

// recognise finds the modules of a session.
func (o *Observer) recognise(s *session, maps remote.Mappings) error {
	s.cache, s.known, s.locks, s.peers, s.look = o.cache, &o.structs, &o.locks, &o.peers, newLooker(o.Look)
	s.img = s.newImage(maps)
	var err error
	if s.php, err = s.findPHP(s.img); err != nil {
		return err
	}
	s.hostJIT(s.img)
	s.pipe = newPipeline(s)
	_ = s.runtime()
	return nil
}

// findPHP finds the module that holds the Zend engine: the program itself, or
// the library that a web server or another program has loaded.
func (s *session) findPHP(img *symbolize.Image) (symbolize.MappedModule, error) {
	exe, err := s.from.Exe()
	if err != nil {
		return symbolize.MappedModule{}, err
	}
	likely := []func(base string) bool{
		func(base string) bool { return base == filepath.Base(exe) },
		func(base string) bool { return strings.Contains(base, "php") },
		func(base string) bool { return true },
	}
	var opened error
	seen := make(map[string]bool)
	for _, match := range likely {
		mods, err := img.ModulesNamed(func(base string) bool { return match(base) && !seen[base] })
		opened = errors.Join(opened, err)
		for _, m := range mods {
			seen[m.Name] = true
			for _, name := range []string{"executor_globals", "executor_globals_offset", "executor_globals_id"} {
				if _, ok := m.Symbol(name); ok {
					return m, nil
				}
			}
		}
	}
	if m, err := img.ModuleNamed(likely[0]); err == nil {
		if b, err := m.File().Section(".rodata"); err == nil && zend.Banner(b) != "" {
			return symbolize.MappedModule{}, fmt.Errorf("%s (%s, PHP %s): %w", s.who, exe, zend.Banner(b), zend.ErrNoSymbols)
		}
	}
	if opened != nil {
		return symbolize.MappedModule{}, fmt.Errorf("%s (%s): %w; not all of its files could be read: %w", s.who, exe, zend.ErrNotPHP, opened)
	}
	return symbolize.MappedModule{}, fmt.Errorf("%s (%s): %w; name the process that runs PHP itself: phpwhy collect finds them", s.who, exe, zend.ErrNotPHP)
}

// runtime returns the Zend engine, nil as long as it has not started.
func (s *session) runtime() *zend.Runtime {
	s.rtMu.Lock()
	defer s.rtMu.Unlock()
	if s.rt == nil {
		if rt, err := s.openZend(); err == nil {
			s.rt = rt
		}
	}
	return s.rt
}

func (s *session) openZend() (*zend.Runtime, error) {
	m := s.php
	o := zend.Options{
		Lookup: func(name string) (remote.Addr, uint64, bool) {
			sym, ok := m.Symbol(name)
			if !ok {
				return 0, 0, false
			}
			return m.Runtime(sym.Value), sym.Size, true
		},
		Rodata: func() ([]byte, error) { return m.File().Section(".rodata") },
		Arch:   m.Arch(),
	}
	if d, _ := m.DWARF(); d != nil {
		if s.types == nil {
			s.types = &dwarfTypes{m: m, known: s.known}
		}
		o.Types = s.types
	}
	return zend.Open(o, s.mem)
}

// dwarfTypes reads struct layouts from the PHP module's DWARF.
type dwarfTypes struct {
	m     symbolize.MappedModule
	known *structs
}

// Structs implements zend.Types.
func (t *dwarfTypes) Structs(names ...string) (map[string]zend.Struct, error) {
	return t.known.of(t.m.Module, names, t.read)
}

// read finds them. The functions named here are compiled in the units that
// define the structs, so only those units are read.
func (t *dwarfTypes) read(names []string) (map[string]zend.Struct, error) {
	var pcs []uint64
	for _, fn := range []string{"execute_ex", "php_execute_script", "_emalloc", "gc_enabled", "php_output_get_level"} {
		if sym, ok := t.m.Symbol(fn); ok {
			pcs = append(pcs, sym.Value)
		}
	}
	found, err := t.m.StructsIn(pcs, names...)
	if err != nil {
		return nil, err
	}
	out := make(map[string]zend.Struct, len(found))
	for name, s := range found {
		z := zend.Struct{Size: s.Size, Members: make(zend.Members, len(s.Members))}
		for path, m := range s.Members {
			z.Members[path] = [2]uint64{m.Offset, m.Size}
		}
		out[name] = z
	}
	return out, nil
}

// image returns the modules as last seen.
func (s *session) image() *symbolize.Image {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.img
}

// refreshImage looks for modules that were loaded since.
func (s *session) refreshImage() *symbolize.Image {
	maps, err := s.live.Mappings()
	if err != nil {
		return s.image()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.img = s.newImage(maps)
	s.hostJIT(s.img)
	return s.img
}

// hostJIT tells the unwinder that PHP's JIT code runs in execute_ex's frame.
func (s *session) hostJIT(img *symbolize.Image) {
	if sym, ok := s.php.Symbol(stack.Executor); ok {
		img.Host(s.php.Runtime(sym.Value))
	}
}

// prepare makes room for stops, and finds the functions to stop at.
func (s *session) prepare(opt Options) (ptrace.Options, error) {
	po := ptrace.Options{
		Engine: opt.Engine, SampleEvery: opt.SampleEvery, MaxStops: opt.Stops, For: opt.For, MaxPause: opt.MaxPause,
		Program: s.live.Program,
	}
	s.first = s.identify()
	s.pipe.progress = opt.Progress
	if opt.Engine != EngineUprobe {
		first := s.rehearse()
		s.pipe.fill(first, first.Cap())
	}
	s.warm()
	if len(opt.Break) == 0 {
		return po, nil
	}
	// A static program has its C library inside, and perhaps no name for it.
	libc, err := s.img.Libc()
	static := err != nil
	if static {
		libc = s.php
	}
	for i, name := range opt.Break {
		if slices.Contains(opt.Break[:i], name) {
			continue
		}
		bp := ptrace.Breakpoint{Name: name, Syscall: ptrace.Syscall(name)}
		rec := capture.Breakpoint{Symbol: name, Module: libc.Name}
		switch sym, ok := libc.Symbol(name); {
		case ok && sym.Func:
			bp.Addr = libc.Runtime(sym.Value)
			rec.Addr = bp.Addr.String()
		case static && bp.Syscall >= 0:
			rec.Module = ""
		default:
			s.note("no breakpoint on %s: %s has no such function", name, libc.Name)
			continue
		}
		po.Breakpoints = append(po.Breakpoints, bp)
		s.cap.Observation.Breakpoints = append(s.cap.Observation.Breakpoints, rec)
	}
	if len(po.Breakpoints) == 0 {
		return po, meanwhile(s.live, noBreakpoint(opt.Break, nil))
	}
	return po, nil
}

func (s *session) note(format string, args ...any) {
	text := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; ")
	s.cap.Observation.Notes = append(s.cap.Observation.Notes, text)
}

func times(n uint64) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// finish waits for the pipeline and completes the capture.
func (s *session) finish(res ptrace.Result, err error) (*capture.Capture, error) {
	s.pipe.close()
	s.describe()
	obs := &s.cap.Observation
	obs.Engine = res.Engine
	if obs.Engine == "" {
		obs.Engine = "none"
	}
	obs.Ended = res.Ended.String()
	if res.Foreign != "" {
		s.note("the process got a SIGTRAP that phpwhy did not raise (%s)", res.Foreign)
	}
	obs.DurationMS = res.Duration.Milliseconds()
	obs.PausedUSTotal = res.PausedTotal.Microseconds()
	obs.PausedUSMax = res.PausedMax.Microseconds()
	for i := range obs.Breakpoints {
		if i < len(res.Hits) {
			obs.Breakpoints[i].Hits = res.Hits[i]
		}
	}
	for _, w := range res.Why {
		if w.Err != nil {
			s.note("engine %s does not work here: %v", w.Engine, w.Err)
		}
	}
	if n := s.pipe.dropped; n > 0 {
		s.note("%d stops came faster than they could be read and have no stack", n)
	}
	if res.Disarmed > 0 {
		s.note("breakpoints were disarmed %s to keep the worker running", times(res.Disarmed))
	}
	if res.Ended == ptrace.EndExited {
		switch {
		case !res.Exit.Known:
			s.note("the process ended")
		case res.Exit.Signal != 0:
			s.note("the process was killed by signal %d (%s)", int(res.Exit.Signal), res.Exit.Signal)
		default:
			s.note("the process exited with status %d", res.Exit.Status)
		}
	}
	s.pipe.into(&s.cap)
	s.facts.end(s, res.Duration-res.PausedTotal, s.cap.Observation.Samples > 1)
	return &s.cap, err
}
