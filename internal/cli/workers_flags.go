package cli

import (
	"regexp"
	"slices"
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
	given  func(flag string) bool
}

func (w *workerFlags) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	w.given = f.Changed
	f.StringSliceVar(&w.pids, "pid", nil, "these processes (may be repeated, or a list with commas)")
	f.StringVar(&w.match, "match", "", "PHP workers whose command line matches this regular expression")
	f.StringSliceVar(&w.pools, "pool", nil, "workers of this php-fpm pool (may be repeated)")
	f.StringVar(&w.cgroup, "cgroup", "", "PHP workers in this control group or container (path or container id)")
}

// chosen refuses a choice that is there and empty, as of a script's variable that is not
// set: taking all workers of the host is not what it asked for.
func chosen(given func(flag string) bool, f workers.Filter, match string, pids int) error {
	for _, c := range []struct {
		flag  string
		empty bool
	}{
		{"pid", pids == 0}, {"match", match == ""}, {"cgroup", f.CGroup == ""},
		{"pool", len(f.Pools) == 0 || slices.Contains(f.Pools, "")},
	} {
		if c.empty && given(c.flag) {
			return usageErrorf("--%s is empty; leave it out to choose all PHP workers", c.flag)
		}
	}
	return nil
}

func (w *workerFlags) filter() (workers.Filter, error) {
	f := workers.Filter{Pools: w.pools, CGroup: w.cgroup}
	if err := chosen(w.given, f, w.match, len(w.pids)); err != nil {
		return f, err
	}
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
