package capture

import (
	"time"

	"github.com/phpwhy/phpwhy/internal/stack"
)

// SchemaMany names the version of the format that holds many processes, and
// looks at them round after round (docs/capture-format.md).
const SchemaMany = "phpwhy/capture/v2"

// Header begins a capture of many processes.
type Header struct {
	Host    Host      `json:"host"`
	Started time.Time `json:"started"`
	Tool    string    `json:"tool,omitempty"` // the program's version
}

// Host is where the processes ran.
type Host struct {
	Name   string `json:"name"`
	BootID string `json:"boot_id"`
	Kernel string `json:"kernel"`
	Arch   string `json:"arch"`
	CPUs   int    `json:"cpus"`
}

// Binary is an ELF file that frames are in.
type Binary struct {
	ID      int    `json:"id"`
	Path    string `json:"path"` // as a process mapped it
	BuildID string `json:"build_id"`
}

// Process is one process: a pid with its start time.
type Process struct {
	ID     int    `json:"id"`
	PID    int    `json:"pid"`
	Start  uint64 `json:"start_ticks"` // clock ticks after the host's boot
	Pool   string `json:"pool,omitempty"`
	Target Target `json:"target"` // at the first look; requests are with each look
}

// PlacedStack is a stack whose native frames say where in which binary they are.
type PlacedStack struct {
	ID int
	stack.Stack
	Places []Place // one for each frame
}

// Place is a frame's address in a binary. NoBinary stands for PHP frames and
// for code that is in no file.
type Place struct {
	Binary int
	Addr   uint64 // link-time; of a caller, the address behind the call
	Exact  bool   // the instruction itself: the innermost frame
}

// NoBinary is the Binary of a Place that is in none.
const NoBinary = -1

// ProcessEvent is a stop of one process's thread. At counts from the look's beginning.
type ProcessEvent struct {
	Event
	Process, Round int
}

// Look is what one round found out about one process, beside its events, which
// precede it.
type Look struct {
	Process     int
	Round       int           // from 1
	At          time.Duration // since Header.Started; when the look began
	Observation Observation
	Request     *Request
	Requests    []ThreadRequest
	Facts       map[string]any
	Variables   []Variable
}

// Failure is a process that could not be looked at in one round.
type Failure struct {
	PID   int    `json:"pid"`
	Round int    `json:"round"`
	Error string `json:"error"`
}

// Gone is a process that had ended when a round began.
type Gone struct {
	Process int `json:"process"`
	Round   int `json:"round"`
}

// End ends a capture of many processes.
type End struct {
	Rounds int    `json:"rounds"`
	Ended  string `json:"ended"` // done or cancelled
}

// Record is one line of a stream: exactly one field is set. A capture of one
// process (phpwhy/capture/v1) reads as a Header without a host, a Process, its
// stacks and events, a Look and an End.
type Record struct {
	Header  *Header
	Binary  *Binary
	Process *Process
	Stack   *PlacedStack
	Event   *ProcessEvent
	Look    *Look
	Failure *Failure
	Gone    *Gone
	End     *End
}

// placeOf finds the module that a runtime address is in.
func placeOf(mods []Module, pc uint64) *Module {
	for i := range mods {
		if m := &mods[i]; pc >= m.Start && pc < m.End {
			return m
		}
	}
	return nil
}

// setExact marks the places that are instructions themselves: the innermost
// frame's and those of what is inlined into it.
func (s *PlacedStack) setExact() {
	for i := range s.Frames {
		if s.Frames[i].Kind != stack.Native {
			continue
		}
		if s.Frames[i].Inlined {
			continue
		}
		if s.Frames[i].How == "entry" {
			for j := i; j >= 0 && s.Frames[j].Kind == stack.Native && s.Frames[j].PC == s.Frames[i].PC; j-- {
				s.Places[j].Exact = true
			}
		}
		return
	}
}
