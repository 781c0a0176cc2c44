// Package doctor finds out what of phpwhy works on this host and with one
// process, and what to change where something does not.
//
// Contract: what can be tried is tried, on a process of our own; settings only
// explain a refusal. The process that is asked about is neither stopped nor
// changed.
//
// Non-goal: it repairs nothing.
package doctor

import (
	"context"
	"fmt"
	"slices"

	"github.com/phpwhy/phpwhy/internal/observe"
	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/ptrace"
	"github.com/phpwhy/phpwhy/internal/report"
)

// NoStop is the way to look at a worker that is no engine: dump --no-stop.
const NoStop = "no-stop"

// engines are those that are tried, and autoOrder those that attach takes by
// itself, the best first.
var (
	engines   = []string{ptrace.EngineHWBP, ptrace.EngineInt3, observe.EngineUprobe, ptrace.EngineSyscall, NoStop}
	autoOrder = []string{ptrace.EngineHWBP, ptrace.EngineInt3, ptrace.EngineSyscall}
)

// ErrNothing says that attach can't work. It is a proc.ErrPermission, too.
var ErrNothing = fmt.Errorf("no engine works: %w", proc.ErrPermission)

// Options say what to look at.
type Options struct {
	PID int // 0: the host alone
	// Functions are those of the C library that attach stops at.
	Functions []string
	// Kept is why capabilities that are not needed were not given up, or nil.
	Kept error
}

// Examine looks at the host and the process. The report is valid together
// with an error, which is the one that attach would end with.
func Examine(ctx context.Context, o Options) (*report.Doctor, error) {
	f := hostFacts()
	d := &report.Doctor{Schema: report.DoctorSchema, Host: f.host, Checks: f.checks(o.Kept)}
	d.Engines = f.tryEngines(ctx)
	d.Auto = auto(d.Engines)
	if o.PID != 0 {
		t, err := examineTarget(f, d.Engines, o)
		d.Target = t
		if err != nil {
			return d, err
		}
		if t.Auto == "" && d.Auto != "" {
			return d, nothing(t.Engines)
		}
	}
	if d.Auto == "" && ctx.Err() == nil {
		return d, nothing(d.Engines)
	}
	return d, ctx.Err()
}

// auto is the engine that attach would take.
func auto(es []report.EngineState) string {
	for _, name := range autoOrder {
		i := slices.IndexFunc(es, func(e report.EngineState) bool { return e.Engine == name })
		if i >= 0 && es[i].State != report.Fails {
			return name
		}
	}
	return ""
}

// nothing repeats what to do about the engine of last resort.
func nothing(es []report.EngineState) error {
	last := autoOrder[len(autoOrder)-1]
	for i := range es {
		if e := &es[i]; e.Engine == last {
			if e.Remedy != "" {
				return fmt.Errorf("%w: %s (%s)", ErrNothing, e.Why, e.Remedy)
			}
			return fmt.Errorf("%w: %s", ErrNothing, e.Why)
		}
	}
	return ErrNothing
}
