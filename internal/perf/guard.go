package perf

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// GuardArg is the hidden first argument with which this program runs itself as
// a Guard.
const GuardArg = "__perf-guard"

// IsHelper reports whether the arguments are for HelperMain.
func IsHelper(args []string) bool { return len(args) > 0 && args[0] == GuardArg }

// HelperMain is what the guard does; main calls it with the arguments from
// GuardArg on and exits with the status that it returns.
func HelperMain(args []string) int {
	if !IsHelper(args) {
		return 2
	}
	return guardMain(args[1:], os.Stdin)
}

// Guard is a process that waits for this one's death. The kernel then takes the
// breakpoints out, but for one case: a process that gets SIGKILL while it is
// about to set or remove one fails at either (uprobe_unregister: "leaking
// uprobe"), and the byte stays. Whoever registers the same breakpoint again and
// gives it up takes it out of every process.
type Guard struct {
	cmd  *os.Process
	pipe *os.File
	once sync.Once
}

const (
	guardDismiss = 'q'
	// guardFiles is the guard's first descriptor of a file to probe.
	guardFiles = 3
	// deathTimeout is how long the kernel may take to end the dead process: its
	// pipe closes before its breakpoints are gone.
	deathTimeout = 10 * time.Second
)

// StartGuard starts one. Dismiss it when the breakpoints are gone.
func StartGuard(points []Point) (*Guard, error) {
	in, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	args, files := []string{"phpwhy", GuardArg, strconv.Itoa(os.Getpid())}, []*os.File{in, nil, nil}
	for _, p := range points {
		args = append(args, strconv.FormatUint(p.Offset, 10))
		files = append(files, p.File)
	}
	cmd, err := os.StartProcess("/proc/self/exe", args, &os.ProcAttr{
		Files: files, Env: []string{"GOMAXPROCS=1"},
		// A session of its own: Ctrl-C and the like must not end it.
		Sys: &syscall.SysProcAttr{Setsid: true},
	})
	err = errors.Join(err, in.Close())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the guard: %w", err), out.Close())
	}
	return &Guard{cmd: cmd, pipe: out}, nil
}

// Dismiss ends the guard and waits for it. Twice is fine.
func (g *Guard) Dismiss() {
	g.once.Do(func() {
		_, _ = g.pipe.Write([]byte{guardDismiss})
		_ = g.pipe.Close()
		_, _ = g.cmd.Wait()
	})
}

// guardMain returns an exit status. The first argument is whose guard this is: the
// parent may be dead before it could be asked for.
func guardMain(args []string, in io.Reader) int {
	if len(args) == 0 {
		return 2
	}
	master, err := strconv.Atoi(args[0])
	if err != nil {
		return 2
	}
	offsets := args[1:]
	b, err := io.ReadAll(in)
	if err != nil || len(b) > 0 && b[len(b)-1] == guardDismiss {
		return 0
	}
	for until := time.Now().Add(deathTimeout); os.Getppid() == master && time.Now().Before(until); {
		time.Sleep(idle)
	}
	var s Session
	errs := s.findType()
	for i, o := range offsets {
		off, err := strconv.ParseUint(o, 10, 64)
		if err == nil {
			err = s.sweep(guardFiles+i, off)
		}
		errs = errors.Join(errs, err)
	}
	if errs != nil {
		return 1
	}
	return 0
}

// idle is how long the guard sleeps between two looks at its parent.
const idle = time.Millisecond

// sweep registers a breakpoint in this process alone, which does not even have
// the file mapped, and gives it up: the kernel then looks at all processes that
// have a breakpoint there which nobody wants any more.
func (s *Session) sweep(file int, off uint64) error {
	attr := unix.PerfEventAttr{Type: s.typ, Size: attrSize, Sample: 1, Ext2: off}
	fd, err := openUprobe(&attr, fmt.Sprintf("/proc/self/fd/%d", file), 0)
	if err != nil {
		return refused("sweep a uprobe", err)
	}
	return unix.Close(fd)
}
