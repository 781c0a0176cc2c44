package observe

import (
	"errors"
	"fmt"
	"time"

	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/target"
	"github.com/phpwhy/phpwhy/internal/zend"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// Peek is what a glance at a running worker tells of its request.
type Peek struct {
	Idle  bool      // no request is in progress
	Web   bool      // it is a web request, no command-line script
	Start time.Time // zero when nobody has noted it
	// Request is the same in two glances at a worker only when both saw the same
	// request; "" when nothing tells one from the next. Then Mark differs in most
	// of those that are not the same.
	Request string
	Mark    uint64
}

const (
	// threadsEvery is how long the list of a thread-safe PHP's threads is
	// believed: finding them reads the ends of all mappings.
	threadsEvery = 10 * time.Second
	// retryEvery is how long it is believed that a process can't be read.
	retryEvery = time.Minute
	// maxEngines bounds the engines that are remembered, maxPeeked the processes.
	maxEngines, maxPeeked = 256, 1 << 16
)

// Peeker glances at requests of many workers again and again without stopping
// them. A php-fpm's workers are copies of one process, with the engine at one
// address, so it is recognised once for all of them; a process costs reading
// its mappings once, and from then on one read of memory per glance.
//
// It is not safe for concurrent use.
type Peeker struct {
	o       *Observer
	engines map[engineKey]*zend.Runtime
	procs   map[procKey]*peeked
}

// engineKey says which engine it is: the file with its code, and where.
type engineKey struct {
	dev, inode uint64
	path       string
	at         remote.Addr
}

// procKey identifies a process.
type procKey struct {
	pid   int
	start uint64
}

// peeked is a process that was looked at before.
type peeked struct {
	rt      *zend.Runtime
	err     error // why it can't be read
	tried   time.Time
	boards  boardFinder
	threads []phpThread
	listed  time.Time
}

// NewPeeker makes a Peeker that has no part in any observation.
func NewPeeker() *Peeker {
	return &Peeker{o: New(), engines: make(map[engineKey]*zend.Runtime), procs: make(map[procKey]*peeked)}
}

// Keep forgets all processes but those that are alive.
func (p *Peeker) Keep(alive func(pid int, start uint64) bool) {
	for k := range p.procs {
		if !alive(k.pid, k.start) {
			delete(p.procs, k)
		}
	}
}

// Peek glances at a process. start is its start time, in clock ticks after boot:
// a pid that is another process's by now gives ErrNoProcess. An error about the
// process itself is remembered for a while and costs nothing until then.
func (p *Peeker) Peek(pid int, start uint64) (Peek, error) {
	k := procKey{pid, start}
	e := p.procs[k]
	if e == nil || e.err != nil && time.Since(e.tried) > retryEvery {
		if len(p.procs) >= maxPeeked {
			clear(p.procs)
		}
		e = &peeked{tried: time.Now()}
		e.rt, e.err = p.engine(pid)
		if errors.Is(e.err, proc.ErrNoProcess) {
			return Peek{}, e.err
		}
		p.procs[k] = e
	}
	if e.err != nil {
		return Peek{}, e.err
	}
	out, err := e.peek(pid)
	// What was read counts if the pid was the same process's until now.
	if t, terr := proc.ReadTimes(pid); terr != nil {
		return Peek{}, terr
	} else if t.Start != start {
		return Peek{}, &proc.Error{PID: pid, What: "look at process", Err: proc.ErrNoProcess, Advice: "its pid is another process's now"}
	}
	if err != nil {
		e.err = err // it may run another program by now
	}
	return out, err
}

// engine recognises the engine of a process, or one that it has in common with
// another.
func (p *Peeker) engine(pid int) (*zend.Runtime, error) {
	live, err := target.Open(pid)
	if err != nil {
		return nil, err
	}
	defer live.Close()
	for i := range live.Maps {
		m := &live.Maps[i]
		if rt := p.engines[engineKey{m.Dev, m.Inode, m.Path, m.Start}]; rt != nil && m.Inode != 0 {
			return rt, nil
		}
	}
	s, err := p.o.open(live)
	if err != nil {
		return nil, err
	}
	rt := s.runtime()
	for i := range live.Maps {
		m := &live.Maps[i]
		if m.Inode == 0 || !m.Exec || !m.Contains(s.php.Runtime(s.entry())) {
			continue
		}
		if len(p.engines) >= maxEngines {
			// Hosts whose containers come and go: the old ones are gone for good.
			clear(p.engines)
			p.o = New()
		}
		p.engines[engineKey{m.Dev, m.Inode, m.Path, m.Start}] = rt
	}
	return rt, nil
}

// entry is a function of the engine, at its link-time address.
func (s *session) entry() uint64 {
	for _, name := range []string{"execute_ex", "php_execute_script", "zend_execute"} {
		if sym, ok := s.php.Symbol(name); ok {
			return sym.Value
		}
	}
	return 0
}

// peek reads what is asked for.
func (e *peeked) peek(pid int) (Peek, error) {
	r := proc.Reader(pid)
	if !e.rt.ZTS {
		th, err := e.rt.Thread(r, 0)
		if err != nil {
			return Peek{}, err
		}
		return e.glance(pid, th, r)
	}
	if now := time.Now(); now.Sub(e.listed) > threadsEvery {
		e.listed = now
		if err := e.list(pid); err != nil {
			return Peek{}, err
		}
	}
	return e.oldest(pid, r)
}

// list finds a thread-safe PHP's threads.
func (e *peeked) list(pid int) error {
	live, err := target.Open(pid)
	if err != nil {
		return err
	}
	defer live.Close()
	s := &session{live: live}
	e.threads = s.phpThreads(e.rt)
	return nil
}

// oldest is the glance at the thread whose request has lasted longest.
func (e *peeked) oldest(pid int, r remote.Reader) (Peek, error) {
	out := Peek{Idle: true}
	var errs []error
	read := 0
	for _, t := range e.threads {
		th, err := e.rt.Thread(r, t.tls)
		if err != nil {
			continue // it has ended
		}
		p, err := e.glance(pid, th, r)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		read++
		switch {
		case p.Idle:
		case out.Idle, !p.Start.IsZero() && (out.Start.IsZero() || p.Start.Before(out.Start)):
			out = p
		}
	}
	if read == 0 {
		return Peek{}, fmt.Errorf("%w: %w", zend.ErrNoThread, errors.Join(errs...))
	}
	return out, nil
}

// glance reads what is asked for of one thread.
func (e *peeked) glance(pid int, th *zend.Thread, r remote.Reader) (Peek, error) {
	g, err := th.Glimpse(r)
	switch {
	case errors.Is(err, zend.ErrNoRequest):
		return Peek{Idle: true}, nil
	case err != nil:
		return Peek{}, err
	}
	out := Peek{Web: g.Web, Start: g.Start, Mark: g.Mark}
	if !g.Start.IsZero() {
		out.Request = g.Start.Format(time.RFC3339Nano)
	}
	if !g.Web || e.rt.SAPI != fpm {
		return out, nil
	}
	board := e.boards.find(r, pid, func() (remote.Mappings, error) { return mappingsOf(pid) })
	if board == nil {
		return out, nil
	}
	a, err := board.during(r, func() (string, error) {
		_, err := th.Glimpse(r)
		return "", err
	})
	switch {
	case errors.Is(err, zend.ErrNoRequest): // it has just ended
		return Peek{Idle: true}, nil
	case err == nil:
		out.Start, out.Request = a.start, fmt.Sprintf("%d at %s", a.n, a.at)
	}
	return out, nil
}
