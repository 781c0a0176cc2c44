package doctor

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/phpwhy/phpwhy/internal/observe"
	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/ptrace"
	"github.com/phpwhy/phpwhy/internal/report"
)

// subject is the process that was asked about.
type subject struct {
	*facts
	t      *report.DoctorTarget
	status proc.Status
	in     observe.Inspection
	denied error // why its memory can't be opened for writing, nil when it can
}

func examineTarget(f *facts, host []report.EngineState, o Options) (*report.DoctorTarget, error) {
	s := &subject{facts: f, t: &report.DoctorTarget{
		PID: o.PID, UID: -1, OtherNS: []string{}, Deleted: []string{}, Engines: []report.EngineState{}, Checks: []report.Check{},
	}}
	var err error
	if s.status, err = proc.ReadStatus(o.PID); err == nil {
		s.identity()
	}
	p, err := proc.Open(o.PID)
	if err != nil {
		s.fail("process", err)
		return s.t, err
	}
	s.process(p)
	s.namespaces()
	s.traced()
	s.filter()
	s.access(p)
	var perr error
	s.in, perr = observe.New().Inspect(o.PID, o.Functions)
	s.php(perr)
	s.engines(host, perr == nil)
	s.t.Auto = auto(s.t.Engines)
	switch {
	case s.t.Tracer != 0:
		return s.t, &proc.Error{PID: o.PID, What: "attach to process", Err: fmt.Errorf("%w by %s", ptrace.ErrTraced, tracer(s.t.Tracer)), Advice: tracedRemedy}
	case s.denied != nil:
		return s.t, s.denied
	}
	return s.t, perr
}

func (s *subject) check(name string, state report.State, text, remedy string) {
	s.t.Checks = append(s.t.Checks, report.Check{Name: name, State: state, Text: text, Remedy: remedy})
}

// fail adds a row from an error, whose advice becomes the remedy.
func (s *subject) fail(name string, err error) {
	var pe *proc.Error
	if errors.As(err, &pe) {
		s.check(name, report.Fails, pe.Err.Error(), pe.Advice)
		return
	}
	s.check(name, report.Fails, err.Error(), "")
}

func (s *subject) identity() {
	t := s.t
	if f := strings.Fields(s.status["Uid"]); len(f) > 1 {
		if n, err := strconv.Atoi(f[1]); err == nil { // the effective one
			t.UID = n
		}
	}
	t.State, _, _ = strings.Cut(s.status["State"], " ")
	t.Tracer, _ = s.status.Number("TracerPid")
	t.Seccomp, _ = s.status.Number("Seccomp")
	t.Cmdline = s.status["Name"]
}

// states are those in which a worker can't be looked at as usual.
var states = map[string][2]string{
	"T": {"stopped by a signal, and stays so while it is looked at", "if nobody wants that: kill -CONT PID"},
	"t": {"stopped by its tracer", ""},
	"D": {"in an uninterruptible system call: it stops only once that returns", "dump --no-stop shows its PHP frames"},
}

func (s *subject) process(p *proc.Process) {
	if c := p.Cmdline(); c != "" {
		s.t.Cmdline = c
	}
	s.t.Exe, _ = p.Exe()
	text := fmt.Sprintf("runs as uid %d, state %s", s.t.UID, s.t.State)
	if tids, err := p.Threads(); err == nil && len(tids) > 1 {
		text += fmt.Sprintf(", %d threads", len(tids))
	}
	if st, ok := states[s.t.State]; ok {
		s.check("process", report.Note, text+": "+st[0], strings.ReplaceAll(st[1], "PID", strconv.Itoa(s.t.PID)))
		return
	}
	s.check("process", report.Good, text, "")
}

// namespaces tells which it does not share with us. Who may not trace it may
// not see them either.
func (s *subject) namespaces() {
	for _, ns := range []string{"mnt", "pid", "user"} {
		ours, err1 := os.Readlink("/proc/self/ns/" + ns)
		theirs, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", s.t.PID, ns))
		if err1 == nil && err2 == nil && ours != theirs {
			s.t.OtherNS = append(s.t.OtherNS, ns)
		}
	}
	if len(s.t.OtherNS) > 0 {
		s.check("namespaces", report.Good, "in a container of its own ("+strings.Join(s.t.OtherNS, ", ")+"): files are opened inside, debug files are looked for here", "")
	}
}

const tracedRemedy = "end that tracer first; dump --no-stop works beside it"

func tracer(pid int) string {
	st, err := proc.ReadStatus(pid)
	if err != nil {
		return fmt.Sprintf("process %d", pid)
	}
	return fmt.Sprintf("%d (%q)", pid, st["Name"])
}

func (s *subject) traced() {
	if s.t.Tracer != 0 {
		s.check("traced", report.Fails, "by "+tracer(s.t.Tracer), tracedRemedy)
	}
}

func (s *subject) filter() {
	if s.t.Seccomp != proc.SeccompNone {
		s.check("seccomp", report.Note, "it has a filter, which must allow what is done in it for a breakpoint: mmap with PROT_EXEC, munmap, rt_sigaction; "+
			"dump and dump --no-stop do nothing in it", "")
	}
}

// access opens the memory as attaching does, which the kernel permits to whom
// it permits to trace.
func (s *subject) access(p *proc.Process) {
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", p.PID), os.O_RDWR, 0)
	if err == nil {
		_ = f.Close()
		s.check("access", report.Good, "may be traced", "")
		return
	}
	s.denied = &proc.Error{PID: p.PID, What: "attach to process", Err: proc.ErrPermission, Advice: proc.AccessTo(p.PID).Advice()}
	s.fail("access", s.denied)
}
