package proc

import (
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// modest is the nice value of a process that makes way for others.
	modest = 10
	// crowded is how many threads a processor has to run, on average, before a modest
	// process would get next to nothing: a weight of 110 against 1024 for each of the
	// others (kernel/sched/core.c, sched_prio_to_weight).
	crowded = 3
)

// MakeWay lowers this process's priority, so that what it computes takes no
// processor time from the worker it looks at. Threads made later inherit it. On a host
// with several times more to do than processors it does not: the tenth of a second
// that it needs would become many, and is nothing beside what others take there.
func MakeWay() {
	if n, ok := running(); ok && n > crowded*runtime.NumCPU() {
		return
	}
	ents, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return // it is a courtesy, not a need
	}
	for _, e := range ents {
		if tid, err := strconv.Atoi(e.Name()); err == nil {
			_ = unix.Setpriority(unix.PRIO_PROCESS, tid, modest)
		}
	}
}

// running is how many threads have a processor or wait for one
// (proc_loadavg(5), the fourth field).
func running() (int, bool) {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, false
	}
	f := strings.Fields(string(b))
	if len(f) < 4 {
		return 0, false
	}
	n, _, _ := strings.Cut(f[3], "/")
	v, err := strconv.Atoi(n)
	return v, err == nil
}
