package cli

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/spf13/cobra"

	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/watch"
	"github.com/phpwhy/phpwhy/internal/watch/daemon"
	"github.com/phpwhy/phpwhy/internal/workers"
	"github.com/phpwhy/phpwhy/internal/zend"
)

// watchedFlags choose the workers to watch.
type watchedFlags struct {
	filter workers.Filter
	match  string
	given  func(flag string) bool
}

func (w *watchedFlags) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	w.given = f.Changed
	f.IntSliceVar(&w.filter.PIDs, "pid", nil, "watch this process (may be repeated)")
	f.StringVar(&w.match, "match", "", "watch PHP processes whose command line matches this regular expression")
	f.StringArrayVar(&w.filter.Pools, "pool", nil, "watch this pool of php-fpm (may be repeated)")
	f.StringVar(&w.filter.CGroup, "cgroup", "", "watch PHP processes in this control group or container, by path or id")
}

func (w *watchedFlags) check() error {
	if err := chosen(w.given, w.filter, w.match, len(w.filter.PIDs)); err != nil {
		return err
	}
	for _, pid := range w.filter.PIDs {
		if pid <= 0 {
			return usageErrorf("--pid: a PID is a positive number, not %d", pid)
		}
	}
	if w.match == "" {
		return nil
	}
	var err error
	if w.filter.Match, err = regexp.Compile(w.match); err != nil {
		return usageErrorf("--match: %v", err)
	}
	return nil
}

// finder lists the workers there are. That there are none is no error of a
// watch; but when all processes that were named have ended, so has the watch.
// Their pids may be used again, by others.
func (w *watchedFlags) finder(say func(string)) func(context.Context) ([]daemon.Worker, error) {
	fi := workers.NewFinder()
	named := make(map[int]uint64) // start times
	first := true
	return func(ctx context.Context) ([]daemon.Worker, error) {
		found, err := fi.Find(ctx, w.filter)
		gone := len(w.filter.PIDs) > 0 && (errors.Is(err, proc.ErrNoProcess) || errors.Is(err, proc.ErrZombie))
		if errors.Is(err, workers.ErrNone) {
			if first && errors.Is(err, proc.ErrPermission) {
				say(err.Error()) // there may be some that can't be seen
			}
			err = nil
		}
		if gone && !first {
			err = nil
		}
		if err != nil && len(found) == 0 {
			return nil, err
		}
		var out []daemon.Worker
		for i := range found {
			f := &found[i]
			if len(w.filter.PIDs) > 0 {
				if first {
					named[f.PID] = f.Start
				} else if named[f.PID] != f.Start {
					continue
				}
			}
			out = append(out, daemon.Worker{ID: watch.ID(f.ID), Pool: f.Pool})
		}
		first = false
		if gone && len(out) == 0 {
			return nil, daemon.ErrOver
		}
		return out, nil
	}
}

// missing is the error when none of the processes that were named is there, or none of
// them is PHP: such a watch would never see anything.
func (w *watchedFlags) missing(ctx context.Context) error {
	if len(w.filter.PIDs) == 0 {
		return nil
	}
	fi := workers.NewFinder()
	found, err := fi.Find(ctx, workers.Filter{PIDs: w.filter.PIDs})
	if len(found) == 0 {
		return err
	}
	for i := range found {
		// What can't be read is for an observation to say.
		if is, err := fi.PHP(&found[i]); is || err != nil {
			return nil
		}
	}
	return fmt.Errorf("process %d (%s): %w; name the process that runs PHP itself: phpwhy collect finds them", found[0].PID, found[0].Exe, zend.ErrNotPHP)
}
