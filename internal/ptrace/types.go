package ptrace

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// Breakpoint is a place to stop at.
type Breakpoint struct {
	Addr remote.Addr // the first instruction of a function, as mapped in the target
	Name string      // for messages
	// Syscall is the number of the system call that the function makes, -1 for
	// none: where the syscall engine stops. An Addr of 0 leaves only that.
	Syscall int
}

// StopKind says why a thread stopped.
type StopKind uint8

// The kinds of stops a Handler sees.
const (
	KindBreakpoint StopKind = iota // a breakpoint; the thread is at its first instruction
	KindSample                     // a sample was due; the thread is anywhere
)

func (k StopKind) String() string {
	if k == KindSample {
		return "sample"
	}
	return "stop"
}

// Stop is one thread that stands still.
type Stop struct {
	TID        int
	Kind       StopKind
	Breakpoint int // index into Options.Breakpoints, -1 for a sample
	Regs       remote.Regs
	Seq        uint64        // 0, 1, 2, … over stops and samples of one observation
	At         time.Duration // since the breakpoints were armed
}

// Verdict is what a Handler wants next.
type Verdict uint8

// The verdicts.
const (
	Continue Verdict = iota // let the thread run on
	Finish                  // end the observation; the thread runs on too
	Missed                  // like Continue; it was not looked at, and counts for no limit
)

// Handler looks at stops. OnStop is called on the tracer's thread while the
// stopped thread waits: copy and return. The Stop is reused for the next call.
type Handler interface {
	OnStop(s *Stop) Verdict
}

// HandlerFunc adapts a function to Handler.
type HandlerFunc func(s *Stop) Verdict

// OnStop calls f.
func (f HandlerFunc) OnStop(s *Stop) Verdict { return f(s) }

// The names of the engines.
const (
	EngineAuto    = "auto"
	EngineHWBP    = "hwbp"
	EngineInt3    = "int3"
	EngineSyscall = "syscall"
)

// Options say what to observe and when to end.
type Options struct {
	Engine      string // EngineAuto when empty
	Breakpoints []Breakpoint
	SampleEvery time.Duration // 0: no samples
	MaxStops    int           // breakpoint stops; 0: no limit
	For         time.Duration // 0: no limit
	// MaxPause is the share (0 to 1) of the time that the process may stand
	// still; breakpoints are disarmed while it has used more. 0: no limit.
	MaxPause float64
	// Program, when not nil, is what proc.Process.Program was when the
	// breakpoints were looked up. A process that has replaced its program since
	// is left alone, and the observation ends with EndExec.
	Program []byte
	// NoGuard leaves out the process that removes int3 breakpoints after this
	// one was killed. The worker survives without it, but keeps the bytes.
	NoGuard bool
}

// EndReason says why an observation ended.
type EndReason uint8

// The reasons.
const (
	EndError     EndReason = iota // see the error
	EndDuration                   // Options.For is over
	EndStops                      // Options.MaxStops were seen
	EndFinished                   // the handler wanted no more
	EndCancelled                  // the context was cancelled
	EndExited                     // the target ended; see Result.Exit
	EndExec                       // the target replaced its program
)

var endNames = [...]string{"error", "duration", "stops", "finished", "cancelled", "target-exited", "target-exec"}

func (e EndReason) String() string { return endNames[e] }

// Exit is how the target ended.
type Exit struct {
	Known  bool        // false when it ended unseen
	Status int         // exit status, when Signal is 0
	Signal unix.Signal // the signal that killed it, or 0
}

// EngineChoice is one engine that was considered.
type EngineChoice struct {
	Engine string
	Err    error // why it does not work here; nil for the one that was taken
}

// Result is what an observation came to. It is valid together with an error.
type Result struct {
	PID     int
	Engine  string // the engine that was used; empty without breakpoints
	Why     []EngineChoice
	Ended   EndReason
	Exit    Exit
	Hits    []uint64 // per breakpoint: stops shown to the handler
	Samples uint64   // samples shown to the handler
	// Unseen are breakpoint hits the handler was not shown: they came while
	// disarming, in a vfork child, or too late to tell where they were.
	Unseen uint64
	// Foreign tells of the first SIGTRAP that was none of ours and was passed on;
	// empty without any.
	Foreign string
	// PausedTotal is summed over all stops of all threads, arming and disarming
	// among them; as long as the tracer saw them stand.
	PausedTotal time.Duration
	PausedMax   time.Duration // the longest single one
	Disarmed    uint64        // how often MaxPause disarmed the breakpoints
	Duration    time.Duration // from arming to disarming
	Threads     int           // the most threads traced at a time
}
