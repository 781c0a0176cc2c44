package cli

import (
	"context"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/watch"
	"github.com/phpwhy/phpwhy/internal/watch/daemon"
)

// workerFlags choose workers.
type workerFlags struct {
	pids  []int
	match string
	pools []string

	re *regexp.Regexp
}

func (w *workerFlags) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.IntSliceVar(&w.pids, "pid", nil, "watch these processes only (may be repeated)")
	f.StringVar(&w.match, "match", "", "watch processes whose command line matches this regular expression")
	f.StringArrayVar(&w.pools, "pool", nil, "watch this pool of php-fpm only (may be repeated)")
}

func (w *workerFlags) check() error {
	if w.match == "" {
		return nil
	}
	var err error
	if w.re, err = regexp.Compile(w.match); err != nil {
		return usageErrorf("--match: %v", err)
	}
	return nil
}

func (w *workerFlags) find(context.Context) ([]daemon.Worker, error) {
	ents, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var out []daemon.Worker
	for _, e := range ents {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if err != nil {
			continue
		}
		cmd := strings.ReplaceAll(string(b), "\x00", " ")
		if !strings.Contains(cmd, "php") || strings.Contains(cmd, "master process") || strings.Contains(cmd, "phpwhy") {
			continue
		}
		if len(w.pids) > 0 && !contains(w.pids, pid) || w.re != nil && !w.re.MatchString(cmd) {
			continue
		}
		_, pool, _ := strings.Cut(strings.TrimSpace(cmd), "php-fpm: pool ")
		if len(w.pools) > 0 && !contains(w.pools, pool) {
			continue
		}
		t, err := proc.ReadTimes(pid)
		if err != nil {
			continue
		}
		out = append(out, daemon.Worker{ID: watch.ID{PID: pid, Start: t.Start}, Pool: pool})
	}
	return out, nil
}

func contains[T comparable](s []T, v T) bool {
	for _, x := range s {
		if x == v {
			return true
		}
	}
	return false
}
