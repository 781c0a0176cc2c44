package cli

import (
	"context"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/watch"
	"github.com/phpwhy/phpwhy/internal/watch/daemon"
)

// workerFlags choose workers, and find them at each tick. What was found out
// about a process is remembered as long as it lives.
type workerFlags struct {
	pids    []int
	match   string
	pools   []string
	cgroups []string

	re    *regexp.Regexp
	tick  int
	known map[int]*candidate
}

// candidate is a process that was looked at.
type candidate struct {
	start  uint64
	tick   int // seen last
	asked  int // the tick at which it was looked at
	chosen bool
	pool   string
}

const (
	// askAgain is how many ticks it is believed that a process is no PHP worker:
	// a pid is used again, a shell executes php.
	askAgain = 10
	// settling is for how many ticks a new process is looked at again: a worker
	// of php-fpm is called master until it has its own name.
	settling = 2
)

func (w *workerFlags) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.IntSliceVar(&w.pids, "pid", nil, "watch this process (may be repeated)")
	f.StringVar(&w.match, "match", "", "watch PHP processes whose command line matches this regular expression")
	f.StringArrayVar(&w.pools, "pool", nil, "watch this pool of php-fpm (may be repeated)")
	f.StringArrayVar(&w.cgroups, "cgroup", nil, "watch PHP processes in this control group and below (may be repeated)")
}

func (w *workerFlags) check() error {
	for i, c := range w.cgroups {
		c = strings.TrimPrefix(c, "/sys/fs/cgroup")
		w.cgroups[i] = "/" + strings.Trim(c, "/")
	}
	if w.match == "" {
		return nil
	}
	var err error
	if w.re, err = regexp.Compile(w.match); err != nil {
		return usageErrorf("--match: %v", err)
	}
	return nil
}

// find lists the workers there are. Processes that end meanwhile are left out.
func (w *workerFlags) find(ctx context.Context) ([]daemon.Worker, error) {
	pids := w.pids
	if len(pids) == 0 {
		var err error
		if pids, err = allPIDs(); err != nil {
			return nil, err
		}
	}
	if w.known == nil {
		w.known = make(map[int]*candidate)
	}
	w.tick++
	var out []daemon.Worker
	for _, pid := range pids {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if c := w.candidate(pid); c != nil && c.chosen {
			out = append(out, daemon.Worker{ID: watch.ID{PID: pid, Start: c.start}, Pool: c.pool})
		}
	}
	for pid, c := range w.known {
		if c.tick != w.tick {
			delete(w.known, pid)
		}
	}
	return out, nil
}

func allPIDs() ([]int, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	out := make([]int, 0, len(names))
	for _, n := range names {
		if pid, err := strconv.Atoi(n); err == nil {
			out = append(out, pid)
		}
	}
	return out, nil
}

// candidate looks at a process, or remembers what it was. It is nil for one
// that has ended.
func (w *workerFlags) candidate(pid int) *candidate {
	c := w.known[pid]
	if c != nil && !c.chosen && w.tick-c.asked < askAgain && w.tick-c.asked >= settling {
		c.tick = w.tick
		return c
	}
	t, err := proc.ReadTimes(pid)
	if err != nil || t.State == 'Z' || t.State == 'X' {
		return nil
	}
	if c != nil && c.start == t.Start && c.chosen {
		c.tick = w.tick
		return c
	}
	asked := w.tick
	if c != nil && c.start == t.Start && w.tick-c.asked < settling {
		asked = c.asked // it is new, and its name may change in a moment
	}
	c = &candidate{start: t.Start, tick: w.tick, asked: asked}
	c.chosen, c.pool = w.choose(pid)
	w.known[pid] = c
	return c
}

// choose reports whether a process is a worker to watch, and its pool.
func (w *workerFlags) choose(pid int) (chosen bool, pool string) {
	dir := "/proc/" + strconv.Itoa(pid) + "/"
	b, err := os.ReadFile(dir + "cmdline")
	if err != nil || len(b) == 0 { // the kernel's own, or gone
		return false, ""
	}
	cmdline := strings.TrimSpace(strings.ReplaceAll(string(b), "\x00", " "))
	title, isFPM := strings.CutPrefix(cmdline, "php-fpm: ")
	pool, _ = strings.CutPrefix(title, "pool ")
	switch {
	case len(w.pids) > 0:
	case isFPM && strings.HasPrefix(title, "master process"):
		return false, ""
	case !isFPM && !runsPHP(dir):
		return false, ""
	}
	if !isFPM {
		pool = ""
	}
	ok := (w.re == nil || w.re.MatchString(cmdline)) && (len(w.pools) == 0 || isFPM && slices.Contains(w.pools, pool)) && w.inGroup(dir)
	return ok, pool
}

// runsPHP reports whether a process has a program or a library of PHP mapped.
func runsPHP(dir string) bool {
	exe, err := os.Readlink(dir + "exe")
	if err != nil {
		return false
	}
	if base := exe[strings.LastIndexByte(exe, '/')+1:]; isPHP(base) {
		return true
	}
	b, err := os.ReadFile(dir + "maps")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if i := strings.LastIndexByte(line, '/'); i >= 0 && strings.HasPrefix(line[i+1:], "libphp") {
			return true
		}
	}
	return false
}

// isPHP knows php, php8.2, php-fpm8.2, php-cgi, frankenphp; not phpwhy.
func isPHP(name string) bool {
	return strings.HasPrefix(name, "php") && !strings.HasPrefix(name, "phpwhy") || name == "frankenphp"
}

// inGroup reports whether a process is in one of the control groups.
func (w *workerFlags) inGroup(dir string) bool {
	if len(w.cgroups) == 0 {
		return true
	}
	b, err := os.ReadFile(dir + "cgroup")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		// hierarchy:controllers:path (cgroups(7))
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		for _, c := range w.cgroups {
			if c == "/" || f[2] == c || strings.HasPrefix(f[2], c+"/") {
				return true
			}
		}
	}
	return false
}
