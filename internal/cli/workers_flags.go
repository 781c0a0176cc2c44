package cli

import (
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/phpwhy/phpwhy/internal/workers"
)

// workerFlags choose workers.
type workerFlags struct {
	pids   []string
	match  string
	pools  []string
	cgroup string
}

func (w *workerFlags) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringSliceVar(&w.pids, "pid", nil, "these processes (may be repeated, or a list with commas)")
	f.StringVar(&w.match, "match", "", "PHP workers whose command line matches this regular expression")
	f.StringSliceVar(&w.pools, "pool", nil, "workers of this php-fpm pool (may be repeated)")
	f.StringVar(&w.cgroup, "cgroup", "", "PHP workers in this control group or container (path or container id)")
}

func (w *workerFlags) filter() (workers.Filter, error) {
	f := workers.Filter{Pools: w.pools, CGroup: w.cgroup}
	for _, s := range w.pids {
		pid, err := parsePID(strings.TrimSpace(s))
		if err != nil {
			return f, err
		}
		f.PIDs = append(f.PIDs, pid)
	}
	if w.match != "" {
		re, err := regexp.Compile(w.match)
		if err != nil {
			return f, usageErrorf("--match: %v", err)
		}
		f.Match = re
	}
	return f, nil
}
