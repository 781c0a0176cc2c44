package report

import (
	_ "embed"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// DoctorSchema names the version of the JSON form of what doctor finds.
const DoctorSchema = "phpwhy/doctor/v1"

//go:embed doctor-v1.schema.json
var doctorSchema []byte

// DoctorJSONSchema is the JSON Schema (draft 2020-12) of that form.
func DoctorJSONSchema() []byte { return slices.Clone(doctorSchema) }

// State says whether something works.
type State string

// The states.
const (
	Works  State = "yes"
	Partly State = "partly" // not with every process; the reason says with which
	Fails  State = "no"
	Good   State = "ok"
	Note   State = "note" // works, and is worth knowing
)

// Doctor is what works on a host, and with one process, and what to change.
type Doctor struct {
	Schema  string        `json:"schema"`
	Host    DoctorHost    `json:"host"`
	Auto    string        `json:"auto"` // the engine that attach takes by itself; "" when there is none
	Engines []EngineState `json:"engines"`
	Checks  []Check       `json:"checks"`
	Target  *DoctorTarget `json:"target"` // null without a PID
}

// DoctorHost is where phpwhy runs, and as whom.
type DoctorHost struct {
	Kernel       string   `json:"kernel"` // 6.1.0-18-amd64
	Arch         string   `json:"arch"`
	UID          int      `json:"uid"`
	User         string   `json:"user"`                // "" when it has no name
	Capabilities []string `json:"capabilities"`        // effective at the start, of those with a use
	Seccomp      int      `json:"seccomp"`             // 0 none, 1 strict, 2 a filter
	Container    string   `json:"container"`           // docker, podman, lxc, …; "" when there is no sign of one
	Yama         *int     `json:"yama_ptrace_scope"`   // null without yama
	Paranoid     *int     `json:"perf_event_paranoid"` // null when it can't be read
	Lockdown     string   `json:"lockdown"`            // none, integrity, confidentiality; "" when unknown
	HidePID      string   `json:"hidepid"`             // of the mount of /proc; "" when off
	UserNS       bool     `json:"user_namespace"`      // not the initial one: capabilities count in it only
}

// EngineState says whether one way to look at a worker works.
type EngineState struct {
	Engine string `json:"engine"` // hwbp, int3, uprobe, syscall or no-stop
	State  State  `json:"state"`  // Works, Partly or Fails
	Why    string `json:"why"`
	Remedy string `json:"remedy"` // what to change; "" when nothing needs to be
}

// Check is one thing that was looked at.
type Check struct {
	Name   string `json:"name"`
	State  State  `json:"state"` // Good, Note or Fails
	Text   string `json:"text"`
	Remedy string `json:"remedy"`
}

// DoctorTarget is one process.
type DoctorTarget struct {
	PID     int           `json:"pid"`
	Cmdline string        `json:"cmdline"`
	Exe     string        `json:"exe"`
	UID     int           `json:"uid"` // -1 when unknown
	State   string        `json:"state"`
	Tracer  int           `json:"tracer_pid"` // 0: nobody traces it
	Seccomp int           `json:"seccomp"`
	OtherNS []string      `json:"other_namespaces"` // those it does not share with phpwhy
	PHP     string        `json:"php_version"`
	SAPI    string        `json:"sapi"`
	ZTS     bool          `json:"zts"`
	Debug   bool          `json:"debug_build"`
	Symbols string        `json:"symbols"`
	Layout  string        `json:"layout"`
	Libc    string        `json:"libc"` // glibc, musl; "" when static or unknown
	JIT     bool          `json:"jit_buffer"`
	Xdebug  bool          `json:"xdebug"`
	Deleted []string      `json:"deleted_files"`
	Auto    string        `json:"auto"`
	Engines []EngineState `json:"engines"`
	Checks  []Check       `json:"checks"`
}

// doctorWidth is how wide the table is where there is no terminal to ask.
const doctorWidth = 80

// DoctorText writes the tables for a person.
func DoctorText(w io.Writer, d *Doctor, o TextOptions) error {
	if o.Width < doctorWidth/2 || o.Width > doctorWidth*3/2 {
		o.Width = doctorWidth
	}
	p := newPrinter(w, o)
	p.prose("", bold, hostLine(&d.Host))
	p.end()
	p.engines(d.Engines, d.Auto)
	p.end()
	p.checks(d.Checks)
	if t := d.Target; t != nil {
		p.end()
		p.prose("", bold, fmt.Sprintf("process %d: %s", t.PID, orUnknown(t.Cmdline)))
		p.end()
		p.checks(t.Checks)
		if len(t.Engines) > 0 {
			p.end()
			p.engines(t.Engines, t.Auto)
		}
	}
	return p.w.Flush()
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

func hostLine(h *DoctorHost) string {
	who := fmt.Sprintf("uid %d", h.UID)
	if h.User != "" {
		who = h.User
	}
	s := fmt.Sprintf("Linux %s on %s, as %s", h.Kernel, h.Arch, who)
	if h.Container != "" {
		s += ", in a container (" + h.Container + ")"
	}
	return s
}

// The widths of the tables' first columns.
const (
	nameColumn  = 13
	stateColumn = 8
)

func (p *printer) header(name, state, rest string) {
	p.line(dim, pad(name, nameColumn)+pad(state, stateColumn)+rest)
}

func (p *printer) engines(es []EngineState, auto string) {
	p.header("ENGINE", "WORKS", "WHY, AND WHAT TO CHANGE")
	said := make(map[string]string)
	for i := range es {
		e := &es[i]
		why, remedy := e.Why, e.Remedy
		if e.Engine == auto {
			why = "auto takes this one; " + why
		}
		if first, ok := said[remedy]; ok && remedy != "" {
			remedy = "as for " + first
		} else {
			said[remedy] = e.Engine
		}
		p.row(e.Engine, e.State, why, remedy)
	}
}

func (p *printer) checks(cs []Check) {
	p.header("CHECK", "STATE", "WHAT WAS FOUND, AND WHAT TO CHANGE")
	for i := range cs {
		p.row(cs[i].Name, cs[i].State, cs[i].Text, cs[i].Remedy)
	}
}

var stateStyles = map[State]style{Works: green, Good: green, Partly: yellow, Note: yellow, Fails: red}

// row writes one row; its text and its remedy are wrapped in the last column.
func (p *printer) row(name string, s State, text, remedy string) {
	p.put(plain, pad(name, nameColumn))
	p.put(stateStyles[s], string(s))
	p.put(plain, strings.Repeat(" ", max(1, stateColumn-len(s))))
	const indent = nameColumn + stateColumn
	p.wrap(indent, plain, text)
	if remedy != "" {
		p.put(plain, strings.Repeat(" ", indent))
		p.wrap(indent, cyan, "→ "+remedy)
	}
}

func pad(s string, n int) string {
	return s + strings.Repeat(" ", max(1, n-utf8.RuneCountInString(s)))
}
