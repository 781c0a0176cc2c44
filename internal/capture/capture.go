// Package capture holds what one observation of one process recorded, and its
// file format: JSON Lines with interned stacks.
//
// Contract: a capture carries everything that rules and reports need, so that
// a live observation and a replayed file give the same findings. A file that
// was cut off in the middle stays readable up to the cut.
//
// Hazard: a capture may come from another host or a hostile one. Everything in
// it is data: decoding is bounded and strict, and text is escaped where it is shown.
package capture

import (
	"time"

	"github.com/phpwhy/phpwhy/internal/stack"
)

// Schema names the file format's version.
const Schema = "phpwhy/capture/v1"

// Target is the observed process, as found at the start.
type Target struct {
	PID        int      `json:"pid"`
	Cmdline    string   `json:"cmdline"`
	Exe        string   `json:"exe"`
	PHPVersion string   `json:"php_version"`
	ZTS        bool     `json:"zts"`
	DebugBuild bool     `json:"debug_build"`
	SAPI       string   `json:"sapi"`
	Libc       string   `json:"libc"`    // glibc, musl or ""
	Symbols    string   `json:"symbols"` // of the PHP module: dwarf, symtab or dynsym
	Layout     string   `json:"layout"`  // dwarf or builtin
	Request    *Request `json:"request,omitempty"`
	// Requests are those of a threaded server with several at once; Request is
	// nil then.
	Requests []ThreadRequest `json:"requests,omitempty"`
}

// ThreadRequest is the request that one thread works on.
type ThreadRequest struct {
	TID int `json:"tid"`
	Request
}

// Request is the web request in progress; nil for a command-line script that has none.
type Request struct {
	Method string `json:"method"`
	URI    string `json:"uri"`
	Script string `json:"script"`
	// AgeMS is for how long the request has been in progress; null when nobody has
	// noted its start.
	AgeMS *int64 `json:"age_ms"`
}

// Age is for how long the request has been in progress, in milliseconds, if known.
func (r *Request) Age() (ms int64, known bool) {
	if r.AgeMS == nil {
		return 0, false
	}
	return *r.AgeMS, true
}

// Breakpoint is one address on which the worker was stopped.
type Breakpoint struct {
	Symbol string `json:"symbol"` // canonical: mmap, mremap
	Module string `json:"module"`
	Addr   string `json:"addr"` // 0x…
	Hits   uint64 `json:"hits"` // including those beyond the budget, which have no event
}

// Observation says how the process was watched and what that cost it.
type Observation struct {
	Engine        string       `json:"engine"` // hwbp, int3, uprobe, "none" for dump, "core" for a core file
	DurationMS    int64        `json:"duration_ms"`
	Stops         int          `json:"stops"`   // breakpoint stops with a stack
	Samples       int          `json:"samples"` // timed stops with a stack
	PausedUSTotal int64        `json:"paused_us_total"`
	PausedUSMax   int64        `json:"paused_us_max"`
	Breakpoints   []Breakpoint `json:"breakpoints"`
	Ended         string       `json:"ended"` // duration, stops, cancelled, target-exited, target-exec, dump, core
	Notes         []string     `json:"notes"` // engine choice, budget, what could not be read
}

// EventKind tells a breakpoint stop from a timed sample.
type EventKind string

// The kinds of events.
const (
	Stop   EventKind = "stop"
	Sample EventKind = "sample"
)

// Event is one stop of one thread.
type Event struct {
	At     time.Duration // since the observation began
	Kind   EventKind
	TID    int
	Symbol string   // of the breakpoint; "" for samples
	Args   []uint64 // of the function stopped at, in order
	Stack  int      // index into Capture.Stacks
}

// Variable is what one PHP variable was seen to be, over the whole observation.
type Variable struct {
	Var      string `json:"var"`   // without $
	At       string `json:"at"`    // as asked for: file, file:line
	Seen     int    `json:"seen"`  // stops and samples at which it was there
	First    string `json:"first"` // as stack.Value has it
	Last     string `json:"last"`
	Distinct int    `json:"distinct"` // values, as far as they are shown; 0 when redacted
	Trend    string `json:"trend"`    // of a number, or of a string's or array's size: grows, shrinks, constant or varies; "" when unknown
}

// Capture is one observation of one process.
type Capture struct {
	Target      Target
	Observation Observation
	Stacks      []stack.Stack // interned: no two are equal
	Events      []Event       // in the order they happened
	// Facts are typed evidence by name, as rules know them: "proc.cpu_pct",
	// "php.memory_usage". A fact that could not be collected is absent.
	Facts map[string]any
	// Variables are those that were asked for, nil for none.
	Variables []Variable
	// Modules are those that native frames are in, where that is known. They are
	// written by StreamWriter only.
	Modules []Module
}

// Module is a mapped ELF file. A frame's link-time address is its pc less Bias.
type Module struct {
	Path       string
	BuildID    string // hexadecimal; "" when it has none
	Start, End uint64 // runtime addresses
	Bias       uint64 // runtime minus link-time address, modulo 2^64
}
