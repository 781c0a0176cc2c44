package builtin_test

import (
	"sync"
	"testing"
)

// abreast runs two subtests at a time: most of a test is waiting. They are not
// marked parallel, which would put them off until all others are done and
// forbid them t.Setenv.
type abreast struct {
	t    *testing.T
	turn chan struct{}
	all  sync.WaitGroup
	mu   sync.Mutex // of the tables' rows
}

// run runs a subtest, beside another one if that does no harm, and keeps what it returns
// in a row of a table.
func (a *abreast) run(beside bool, name string, row map[string]string, column string, f func(*testing.T) (cell string, ok bool)) {
	if !beside {
		a.wait()
	}
	a.turn <- struct{}{}
	a.all.Go(func() {
		defer func() { <-a.turn }()
		a.t.Run(name, func(t *testing.T) {
			cell, ok := f(t)
			a.mu.Lock()
			row[column] = cell
			a.mu.Unlock()
			if !ok {
				t.Error(cell)
			}
		})
	})
	if !beside {
		a.wait()
	}
}

// wait waits for all that run.
func (a *abreast) wait() { a.all.Wait() }

// single reports whether the hang is a script that needs no other worker and no
// server, so that another one may run beside it.
func (h *hang) single() bool { return h.start == nil && h.server == "" }
