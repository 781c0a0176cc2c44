// Package triage sorts what many workers were seen doing: which share a cause,
// which share a stack, and who waits for whom.
//
// Contract: the groups come first and every worker is in exactly one. A worker
// that a rule explains is grouped by the rule and its place in PHP code, any
// other by its canonical stack. A wait is joined to its holder's own PHP line
// where the holder was collected too, and says so where it was not.
//
// Hazard: captures come from other hosts. Adding to a Builder costs memory by
// distinct stack and by worker, both bounded; what is over the bounds is
// counted and noted, never dropped in silence.
//
// Non-goal: it reads no files and prints nothing.
package triage

import (
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/stack"
)

// Schema names the version of the model's JSON form.
const Schema = "phpwhy/triage/v1"

// Model is what captures of many processes say together. Indices (of workers,
// stacks, groups, hosts, binaries) point into its slices; -1 is none. Every
// slice is present in JSON, empty or not.
type Model struct {
	Schema  string    `json:"schema"`
	Summary string    `json:"summary"` // one sentence: what most workers do
	From    time.Time `json:"from"`    // zero when the captures carry no clock (v1)
	To      time.Time `json:"to"`
	Rounds  int       `json:"rounds"` // of all captures of one host; the most that a host has
	Looks   int       `json:"looks"`  // one worker in one round
	Events  int       `json:"events"`

	Groups   []Group   `json:"groups"` // causes, waits without a rule, what is unexplained, the healthy; the largest of each first
	Findings []Finding `json:"findings"`
	Workers  []Worker  `json:"workers"` // by host and pid
	Stacks   []Stack   `json:"stacks"`  // most frequent first
	Timeline []Tick    `json:"timeline"`
	Failures []Failure `json:"failures"`
	Hosts    []Host    `json:"hosts"`
	Binaries []Binary  `json:"binaries"`
	Sources  []Source  `json:"sources"`
	Notes    []string  `json:"notes"`
}

// Group are workers that do the same.
type Group struct {
	Title    string `json:"title"`    // of the rule, or what the innermost frames do
	Rule     string `json:"rule"`     // "" when no rule explains it
	Kind     string `json:"kind"`     // cause or benign, "" without a rule
	Severity string `json:"severity"` // "" without a rule
	Message  string `json:"message"`  // of the finding in the group's first worker
	Fix      string `json:"fix"`
	Site     Site   `json:"php"` // all empty when there is none
	Workers  []int  `json:"workers"`
	Looks    int    `json:"looks"`
	// Stacks are those that its workers were seen with, most frequent first;
	// the first one stands for the group.
	Stacks []int      `json:"stacks"`
	URIs   []URICount `json:"uris"` // most frequent first
	Ages   *Ages      `json:"request_age_ms,omitempty"`
	Waits  []Wait     `json:"waits"` // most waited for first
	// Undetermined are rules that may explain workers that none does: what they lack
	// was not collected. The likeliest come first.
	Undetermined []Undetermined `json:"undetermined"`
}

// Undetermined is a rule that could not be decided.
type Undetermined struct {
	Rule    string   `json:"rule"`
	Missing []string `json:"missing"` // evidence, with how it is collected
	// How says how to collect it from many workers; "" when nothing is known to.
	How string `json:"how"`
}

// Site is a place in PHP code.
type Site struct {
	Function string `json:"function"`
	Class    string `json:"class"`
	File     string `json:"file"`
	Line     int    `json:"line"`
}

// URICount is how many of a group's workers serve a URI (without its query).
type URICount struct {
	Method string `json:"method"`
	URI    string `json:"uri"`
	N      int    `json:"n"`
}

// Ages are those of a group's requests, in milliseconds.
type Ages struct {
	Min    int64 `json:"min"`
	Median int64 `json:"median"`
	Max    int64 `json:"max"`
}

// Wait is what workers of a group wait for.
type Wait struct {
	Kind string `json:"kind"` // flock, posix, futex, …, pipe, child, peer
	What string `json:"what"` // the file's path, the peer's address
	// HolderPID has it; 0 when nobody is known to.
	HolderPID int    `json:"holder_pid"`
	Holder    int    `json:"holder"` // among Workers
	HolderWho string `json:"holder_who"`
	// HolderSite is where the holder was in PHP code when the waiting was seen.
	HolderSite  Site   `json:"holder_php"`
	HolderDoing string `json:"holder_doing"` // its innermost internal function, "" in PHP code
	HolderURI   string `json:"holder_uri"`
	// Chain are the workers from the holder on whom it waits for in turn. It
	// ends with the one that waits for nobody, or where Deadlock, at the first again.
	Chain    []int `json:"chain"`
	Deadlock bool  `json:"deadlock"`
	Workers  []int `json:"workers"` // that wait

	fate fate // of the holder
}

// Finding is a rule that matches workers, wherever in their code.
type Finding struct {
	Rule       string  `json:"rule"`
	Kind       string  `json:"kind"`
	Severity   string  `json:"severity"`
	Title      string  `json:"title"`
	Message    string  `json:"message"` // of the worker where it is most certain
	Fix        string  `json:"fix"`
	Confidence float64 `json:"confidence"` // the highest
	Workers    []int   `json:"workers"`
}

// Worker is one process: pid and start time on one host.
type Worker struct {
	Host     int              `json:"host"`
	PID      int              `json:"pid"`
	Start    uint64           `json:"start_ticks"` // 0 when unknown (v1)
	Pool     string           `json:"pool"`
	Target   capture.Target   `json:"target"` // as last seen, without its request
	Request  *capture.Request `json:"request"`
	Group    int              `json:"group"`
	Findings []WorkerFinding  `json:"findings"` // best first
	Looks    int              `json:"looks"`
	Stops    int              `json:"stops"`
	Samples  int              `json:"samples"`
	// Stack is the one it was seen with most.
	Stack    int            `json:"stack"`
	Site     Site           `json:"php"` // innermost user code of that stack
	Paused   int64          `json:"paused_us_max"`
	PausedUS int64          `json:"paused_us_total"`
	Ended    bool           `json:"ended"` // it was gone at a later round
	Facts    map[string]any `json:"facts"` // of the last look, and of its pool then
}

// WorkerFinding is what a rule says of one worker.
type WorkerFinding struct {
	Rule       string  `json:"rule"`
	Confidence float64 `json:"confidence"`
	Message    string  `json:"message"`
	Site       Site    `json:"php"`
}

// Stack is a joined stack and who was seen with it. Two are one when they differ
// in addresses inside a line only.
type Stack struct {
	Count  int           `json:"count"`
	Frames []stack.Frame `json:"frames"`
	// Places are where the frames' code is, one for each frame.
	Places []Place   `json:"places"`
	End    stack.End `json:"end"`
	Error  string    `json:"error"`
	Seen   []Seen    `json:"seen"`
}

// Place is an address in a binary, the same in every process that maps it.
type Place struct {
	Binary int    `json:"binary"` // among Binaries; -1 for PHP frames and code without a file
	Addr   uint64 `json:"addr"`   // link-time address; of callers, the return address
	Exact  bool   `json:"exact"`  // Addr is the instruction itself, not what follows a call
}

// Seen is how often a worker had a stack.
type Seen struct {
	Worker int               `json:"worker"`
	Kind   capture.EventKind `json:"kind"`
	N      int               `json:"n"`
}

// Tick is one round on one host.
type Tick struct {
	Host    int       `json:"host"`
	Round   int       `json:"round"`
	At      time.Time `json:"at"`
	Workers int       `json:"workers"` // that were looked at
	// Groups says how many of them did what each group does, by group.
	Groups []int `json:"groups"`
}

// Failure is a worker that could not be looked at.
type Failure struct {
	Host  int    `json:"host"`
	PID   int    `json:"pid"`
	Round int    `json:"round"`
	Error string `json:"error"`
}

// Host is where workers run.
type Host struct {
	Name   string `json:"name"`
	BootID string `json:"boot_id"` // tells two boots and two hosts of one name apart
	Kernel string `json:"kernel"`
	Arch   string `json:"arch"`
	CPUs   int    `json:"cpus"`
}

// Binary is an ELF file that frames are in.
type Binary struct {
	Path    string `json:"path"`
	BuildID string `json:"build_id"` // "" when it has none
}

// Source is a file that was read.
type Source struct {
	Name      string `json:"name"`
	Truncated bool   `json:"truncated"` // it was cut off; what precedes the cut counts
	Damage    string `json:"damage"`    // why the rest could not be read; what precedes it counts
}
