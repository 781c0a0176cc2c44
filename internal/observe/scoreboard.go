package observe

import (
	"errors"
	"fmt"
	"time"

	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/zend"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// scoreboard finds what php-fpm notes of one worker. PHP itself notes the time
// of a request only when a script asks for it, and then the time of asking.
type scoreboard struct {
	own  int           // its pid as it sees itself
	same bool          // its monotonic clock is this process's
	born time.Duration // when it was started, after boot
	at   remote.Addr   // of its slot
}

// fpm is the SAPI that has a scoreboard.
const fpm = "fpm-fcgi"

// findScoreboard searches a worker's memory once for all further looks.
func findScoreboard(r remote.Reader, maps remote.Mappings, pid int) (*scoreboard, error) {
	own, err := proc.Inside(pid)
	if err != nil {
		return nil, err
	}
	t, err := proc.ReadTimes(pid)
	if err != nil {
		return nil, err
	}
	at, err := zend.FindSlot(r, maps, own)
	if err != nil {
		return nil, err
	}
	return &scoreboard{own: own, same: proc.SameClock(pid), born: proc.StartedAt(t.Start), at: at}, nil
}

// boardFinder finds a worker's slot and remembers it.
type boardFinder struct {
	board  *scoreboard
	sought time.Time
}

// find returns the slot, nil when there is none. One that is not there is looked
// for again after a while: a worker has none in its first moments. maps gives its
// mappings.
func (f *boardFinder) find(r remote.Reader, pid int, maps func() (remote.Mappings, error)) *scoreboard {
	if f.board != nil || time.Since(f.sought) < retryEvery {
		return f.board
	}
	f.sought = time.Now()
	if m, err := maps(); err == nil {
		f.board, _ = findScoreboard(r, m, pid)
	}
	return f.board
}

// mappingsOf reads those of a process.
func mappingsOf(pid int) (remote.Mappings, error) {
	p, err := proc.Open(pid)
	if err != nil {
		return nil, err
	}
	return p.Mappings()
}

// accepted is one request that a worker has accepted.
type accepted struct {
	n      uint64 // it is the worker's nth
	at     time.Duration
	method string
	start  time.Time
}

// errNotAccepted says that the worker has accepted no request that is not over.
var errNotAccepted = errors.New("the scoreboard knows of no request in progress")

// slack is by how much two clocks may differ that are read one after the other,
// one of them in whole seconds.
const slack = 2 * time.Second

// now reads the request that the worker has at this moment. The caller knows
// that there is one.
func (b *scoreboard) now(r remote.Reader) (accepted, error) {
	s, err := zend.ReadSlot(r, b.at, b.own)
	if err != nil {
		return accepted{}, err
	}
	if !s.Busy {
		return accepted{}, errNotAccepted
	}
	a := accepted{n: s.Requests, at: s.Accepted, method: s.Method}
	now := time.Now()
	age := now.Round(0).Sub(s.AcceptedAt)
	if b.same {
		up, err := proc.Monotonic()
		if err != nil {
			return accepted{}, err
		}
		age = up - s.Accepted // the wall clock may have been set since
	}
	boot, err := proc.SinceBoot()
	if err != nil {
		return accepted{}, err
	}
	if lived := boot - b.born; age < -slack || age > lived+slack {
		return accepted{}, fmt.Errorf("%w: accepted %s ago by a worker that is %s old", zend.ErrNoSlot, age, lived)
	}
	a.start = now.Add(-max(age, 0))
	return a, nil
}

// during has a request read, and says when it was accepted if it was the same
// one before and after.
func (b *scoreboard) during(r remote.Reader, read func() (method string, err error)) (accepted, error) {
	var err error
	for range factTries {
		var before, after accepted
		if before, err = b.now(r); err != nil {
			return accepted{}, err
		}
		method, rerr := read()
		if rerr != nil {
			return accepted{}, rerr
		}
		if after, err = b.now(r); err != nil {
			return accepted{}, err
		}
		if before.n == after.n && before.at == after.at {
			if after.method != "" && method != "" && !samePrefix(after.method, method) {
				return accepted{}, fmt.Errorf("%w: it has another request's method", zend.ErrNoSlot)
			}
			return after, nil
		}
	}
	return accepted{}, errNotAccepted
}

// samePrefix compares a method with the one in the scoreboard, which cuts it off.
func samePrefix(cut, whole string) bool { return len(cut) <= len(whole) && whole[:len(cut)] == cut }
