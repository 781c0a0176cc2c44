package rules

import "time"

// FrameKind tells native from PHP frames.
type FrameKind uint8

// The kinds of frames.
const (
	Native FrameKind = iota
	PHP
)

// Frame is one frame of a stack.
type Frame struct {
	Kind   FrameKind
	Name   string // canonical C name, or the PHP function's name; "" when unknown
	Raw    string // as the symbol table spells it
	Class  string // of a PHP method
	Module string // base name of the ELF file
	File   string
	Line   int
	// Inlined is set for native frames without an activation of their own.
	Inlined bool
	// Internal is set for PHP functions that are implemented in C.
	Internal bool
}

// Unresolved reports whether a native frame has no name.
func (f *Frame) Unresolved() bool { return f.Kind == Native && f.Name == "" }

// Stack is one thread's joined stack, leaf first.
type Stack struct {
	Frames []Frame
	// Truncated is set when there are frames beyond the last that were not
	// read. A pattern that they could complete is then undetermined.
	Truncated bool
}

// EventKind tells a breakpoint stop from a timed sample.
type EventKind uint8

// The kinds of events.
const (
	Stop EventKind = iota
	Sample
)

// Event is one stop of one thread.
type Event struct {
	Kind   EventKind
	At     time.Duration // since the observation began
	TID    int
	Symbol string   // of the breakpoint; "" for samples
	Args   []uint64 // of the function stopped at
	Stack  int      // index into Observation.Stacks
}

// Target is what is known of the observed program; empty fields are unknown.
type Target struct {
	PHPVersion string // 8.2.36
	SAPI       string // cli, fpm-fcgi, apache2handler
	Libc       string // glibc, musl
}

// Observation is everything that rules see of one process.
type Observation struct {
	Target   Target
	Stacks   []Stack // without duplicates
	Events   []Event // in the order they happened
	Duration time.Duration
	// Watched are the functions that had a breakpoint: without stops on them,
	// they were not called.
	Watched []string
	// Nearby says that native frames are named by the nearest symbol below them, whatever
	// its size: in stripped code that is often another function.
	Nearby bool
	// Facts is the evidence beside the stacks, by the names that expressions
	// use, such as "proc.cpu_pct". A fact that could not be collected is absent.
	Facts map[string]any
}
