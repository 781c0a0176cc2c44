// Package workers finds the PHP workers of a host: by pid, command line,
// php-fpm pool or control group, or all of them.
//
// Contract: nothing is stopped and nothing of a process's memory is read; what
// makes a program PHP is looked for once per program. A worker is one process:
// its pid together with its start time, since pids come again.
//
// Hazard: titles and command lines are the process's own words. They choose
// among PHP processes; they make nothing a PHP process.
//
// Non-goal: whether a worker hangs is not judged here.
package workers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/phpwhy/phpwhy/internal/proc"
)

// ID is one process for as long as the host runs.
type ID struct {
	PID   int
	Start uint64 // clock ticks after boot, as /proc/PID/stat has it
}

// Worker is a PHP process as /proc showed it.
type Worker struct {
	ID
	PPID    int
	Exe     string // as the process sees it
	Cmdline string // php-fpm's is its process title
	Pool    string // of php-fpm; "" for anything else
	State   string // one letter, as ps shows it
	// CPU is the user and system time of all its threads, in steps of 10 ms.
	CPU time.Duration

	binary binary
	master bool // it starts and ends workers and serves no request
}

// Filter chooses workers. Each condition that is set must hold; the zero value
// takes every PHP worker of the host.
type Filter struct {
	// PIDs are processes by number. They are not asked whether they run PHP, and
	// may be masters: whoever names one wants it.
	PIDs []int
	// Match is looked for in the command line.
	Match *regexp.Regexp
	// Pools are php-fpm pools by name.
	Pools []string
	// CGroup is a control group's path or a container's id (12 digits or more).
	// Processes in groups below it count.
	CGroup string
}

// ErrNone says that no worker was found.
var ErrNone = errors.New("no PHP worker found")

// Find looks for workers once; see Finder.Find.
func Find(ctx context.Context, f Filter) ([]Worker, error) { return NewFinder().Find(ctx, f) }

// Find returns the workers in the order of their pids. Pids that were asked for
// and are not there come as an error (proc.ErrNoProcess, or proc.ErrZombie and
// proc.ErrKernelThread of what is none) together with the others. Where nothing was found and some processes could not be looked at, the
// error is proc.ErrPermission, else ErrNone.
func (fi *Finder) Find(ctx context.Context, f Filter) ([]Worker, error) {
	pids := slices.Clone(f.PIDs)
	if len(pids) == 0 {
		var err error
		if pids, err = all(); err != nil {
			return nil, err
		}
	}
	slices.Sort(pids)
	pids = slices.Compact(pids)
	s := search{fi: fi, f: f, named: len(f.PIDs) > 0}
	for _, pid := range pids {
		if err := ctx.Err(); err != nil {
			return s.found, err
		}
		s.look(pid)
	}
	s.dropMasters()
	fi.forget(pids, s.named)
	if len(s.found) == 0 && len(s.errs) == 0 {
		if s.hidden > 0 {
			return nil, fmt.Errorf("%w; %s could not be looked at: %w", ErrNone, processes(s.hidden), proc.ErrPermission)
		}
		return nil, ErrNone
	}
	return s.found, errors.Join(s.errs...)
}

// search is one run of Find.
type search struct {
	fi     *Finder
	f      Filter
	named  bool
	found  []Worker
	errs   []error
	hidden int
}

func (s *search) look(pid int) {
	w, err := read(pid)
	if err == nil {
		// Everybody may read the command line; of what was not asked for it does
		// not matter that the rest is hidden.
		if !s.matches(&w) {
			return
		}
		err = w.program()
	}
	if err != nil {
		switch {
		case s.named && errors.Is(err, os.ErrPermission):
			s.errs = append(s.errs, &proc.Error{PID: pid, What: "look at process", Err: proc.ErrPermission, Advice: proc.AccessTo(pid).Advice()})
		case s.named:
			s.errs = append(s.errs, refusal(pid))
		case errors.Is(err, os.ErrPermission):
			s.hidden++
		}
		return
	}
	if !s.named {
		is, err := s.fi.PHP(&w)
		if errors.Is(err, os.ErrPermission) {
			s.hidden++
		}
		if !is {
			return
		}
	}
	s.found = append(s.found, w)
}

// refusal says why a process that was named is no worker: it is not there, a zombie, a
// kernel thread.
func refusal(pid int) error {
	if _, err := proc.Open(pid); err != nil {
		return err
	}
	// It has ended since it was looked at, or begins a program just now.
	return &proc.Error{PID: pid, What: "look at process", Err: proc.ErrNoProcess}
}

func (s *search) matches(w *Worker) bool {
	if s.f.Match != nil && !s.f.Match.MatchString(w.Cmdline) {
		return false
	}
	if len(s.f.Pools) > 0 && !slices.Contains(s.f.Pools, w.Pool) {
		return false
	}
	return s.f.CGroup == "" || inCGroup(w.PID, s.f.CGroup)
}

// read takes the cheap facts of one process.
func read(pid int) (Worker, error) {
	w := Worker{ID: ID{PID: pid}}
	dir := "/proc/" + strconv.Itoa(pid)
	b, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return w, err
	}
	if err := w.stat(string(b)); err != nil {
		return w, err
	}
	if w.State == "Z" || w.State == "X" {
		return w, proc.ErrZombie
	}
	b, err = os.ReadFile(dir + "/cmdline")
	if err != nil {
		return w, err
	}
	w.Cmdline = strings.TrimSpace(strings.ReplaceAll(strings.TrimRight(string(b), "\x00"), "\x00", " "))
	w.title()
	return w, nil
}

// program finds out which program it runs. A kernel thread has none, nor has what
// is just ending.
func (w *Worker) program() (err error) {
	exe := "/proc/" + strconv.Itoa(w.PID) + "/exe"
	if w.Exe, err = os.Readlink(exe); err != nil {
		return err
	}
	w.Exe = strings.TrimSuffix(w.Exe, " (deleted)")
	w.binary, err = binaryAt(exe)
	return err
}

// tick is USER_HZ's period (include/asm-generic/param.h).
const tick = 10 * time.Millisecond

// stat reads the fields of /proc/PID/stat behind the name, which may hold
// spaces and brackets of its own (proc_pid_stat(5)).
func (w *Worker) stat(s string) error {
	i := strings.LastIndexByte(s, ')')
	if i < 0 {
		return fmt.Errorf("no name in /proc/%d/stat", w.PID)
	}
	f := strings.Fields(s[i+1:])
	const state, ppid, utime, stime, start = 0, 1, 11, 12, 19
	if len(f) <= start {
		return fmt.Errorf("%d fields in /proc/%d/stat", len(f), w.PID)
	}
	w.State = f[state]
	var ns [4]uint64
	for i, n := range []int{ppid, utime, stime, start} {
		v, err := strconv.ParseUint(f[n], 10, 64)
		if err != nil {
			return fmt.Errorf("/proc/%d/stat: %w", w.PID, err)
		}
		ns[i] = v
	}
	w.PPID, w.Start = int(ns[0]), ns[3]
	w.CPU = time.Duration(ns[1]+ns[2]) * tick
	return nil
}

// title reads what php-fpm says of itself (sapi/fpm/fpm/fpm_env.c).
func (w *Worker) title() {
	if rest, ok := strings.CutPrefix(w.Cmdline, "php-fpm: pool "); ok {
		w.Pool = strings.TrimSpace(rest)
	}
	w.master = strings.HasPrefix(w.Cmdline, "php-fpm: master process")
}

// dropMasters leaves out the processes that serve nothing themselves: php-fpm's
// and Apache's parents of their like.
func (s *search) dropMasters() {
	if s.named {
		return
	}
	parents := make(map[int]binary, len(s.found))
	for i := range s.found {
		parents[s.found[i].PPID] = s.found[i].binary
	}
	s.found = slices.DeleteFunc(s.found, func(w Worker) bool {
		child, has := parents[w.PID]
		return w.master || has && child == w.binary && prefork(filepath.Base(w.Exe))
	})
}

// prefork reports whether a program's parent process only manages its children.
// Elsewhere, as with pcntl_fork, the parent is PHP that runs like any other.
func prefork(base string) bool {
	for _, p := range []string{"php-fpm", "php-cgi", "lsphp", "apache2", "httpd"} {
		if strings.HasPrefix(base, p) {
			return true
		}
	}
	return false
}

func all() ([]int, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	self := os.Getpid()
	var out []int
	for _, n := range names {
		if pid, err := strconv.Atoi(n); err == nil && pid != self {
			out = append(out, pid)
		}
	}
	return out, nil
}

// processes counts them.
func processes(n int) string {
	if n == 1 {
		return "1 process"
	}
	return fmt.Sprintf("%d processes", n)
}
