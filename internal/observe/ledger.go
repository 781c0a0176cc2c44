package observe

import (
	"sync/atomic"

	"github.com/phpwhy/phpwhy/internal/capture"
)

// ledgerPage is how many stops a page of the ledger holds.
const ledgerPage = 4096

// ledger is where the tracer's thread writes down stops that need no reading. It
// grows by pages, since moving everything to a larger place would take long while
// the worker stands still.
type ledger struct {
	pages [][]capture.Event
	room  []uint64 // for arguments
	n     atomic.Int64
}

// args returns room for a stop's arguments.
func (l *ledger) args() []uint64 {
	if len(l.room) < maxArgs {
		l.room = make([]uint64, ledgerPage*maxArgs)
	}
	out := l.room[:0:maxArgs]
	l.room = l.room[maxArgs:]
	return out
}

func (l *ledger) add(ev capture.Event) {
	last := len(l.pages) - 1
	if last < 0 || len(l.pages[last]) == ledgerPage {
		l.pages = append(l.pages, make([]capture.Event, 0, ledgerPage))
		last++
	}
	l.pages[last] = append(l.pages[last], ev)
	l.n.Add(1)
}

func (l *ledger) len() int { return int(l.n.Load()) }

// into merges the ledger with other events; both are in the order in which they
// happened.
func (l *ledger) into(events []capture.Event) []capture.Event {
	if len(l.pages) == 0 {
		return events
	}
	out := make([]capture.Event, 0, len(events)+l.len())
	for _, p := range l.pages {
		for i := range p {
			for len(events) > 0 && events[0].At <= p[i].At {
				out, events = append(out, events[0]), events[1:]
			}
			out = append(out, p[i])
		}
	}
	return append(out, events...)
}
