package proc

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// modest is the nice value of a process that makes way for others.
const modest = 10

// MakeWay lowers this process's priority, so that what it computes takes no
// processor time from the worker it looks at. Threads made later inherit it.
func MakeWay() {
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
