package observe

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/zend"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// describe fills in the target's description. What can no longer be read of a
// process that has ended is as it was at first.
func (s *session) describe() {
	t := s.identify()
	if f := &s.first; s.live != nil && !s.live.Alive() {
		t.Cmdline, t.Exe = cmp.Or(t.Cmdline, f.Cmdline), cmp.Or(t.Exe, f.Exe)
		if t.Request == nil && t.Requests == nil {
			t.Request, t.Requests = f.Request, f.Requests
		}
	}
	s.unopened(s.php.Module)
	if libc, err := s.image().Libc(); err == nil {
		s.unopened(libc.Module)
	}
	s.cap.Target = t
}

// identify says what is being observed.
func (s *session) identify() (t capture.Target) {
	t.PID = s.pid
	t.Cmdline = s.from.Cmdline()
	t.Exe, _ = s.from.Exe()
	t.Symbols = s.php.SymbolSource()
	if libc, err := s.image().Libc(); err == nil {
		t.Libc = "glibc"
		if strings.Contains(libc.Name, "musl") || libc.Name == "libc.so" {
			t.Libc = "musl"
		}
	}
	rt := s.runtime()
	if rt == nil {
		return t
	}
	t.PHPVersion, t.ZTS, t.DebugBuild, t.SAPI = rt.Version, rt.ZTS, rt.Debug, rt.SAPI
	t.Layout = string(rt.Layout.Source)
	if requests := s.requests(rt); len(requests) > 1 {
		t.Requests = requests
		return t
	}
	if th := s.thread(); th != nil {
		t.Request = s.request(th)
	}
	return t
}

// request is what a thread works on, nil when that is no web request.
func (s *session) request(th *zend.Thread) *capture.Request {
	q := s.accepted(th)
	if q.Method == "" && q.URI == "" { // a command-line script has neither
		return nil
	}
	out := &capture.Request{Method: q.Method, URI: q.URI, Script: q.Script}
	// A core does not say when it was taken.
	if !q.Start.IsZero() && s.live != nil {
		age := max(0, time.Since(q.Start).Milliseconds())
		out.AgeMS = &age
	}
	return out
}

// accepted reads the request that a thread works on, and when it began as far
// as anybody has noted that.
func (s *session) accepted(th *zend.Thread) (q zend.Request) {
	read := func() (string, error) {
		var err error
		q, err = th.Request(s.mem)
		if errors.Is(err, zend.ErrNoRequest) {
			return "", err
		}
		return q.Method, nil // what could not be read is missing, no more
	}
	if s.live != nil && s.runtime().SAPI == fpm {
		// Most workers of a pool are idle, and for these nothing is searched.
		if _, err := read(); errors.Is(err, zend.ErrNoRequest) {
			return q
		}
		if b := s.boards.find(s.mem, s.pid, func() (remote.Mappings, error) { return s.image().Mappings(), nil }); b != nil {
			if a, err := b.during(s.mem, read); err == nil {
				q.Start = a.start
				return q
			}
		}
	}
	_, _ = read()
	return q
}

// requests are those of the threads that were seen running PHP.
func (s *session) requests(rt *zend.Runtime) []capture.ThreadRequest {
	s.leadMu.Lock()
	defer s.leadMu.Unlock()
	var out []capture.ThreadRequest
	for _, tid := range slices.Sorted(maps.Keys(s.leads)) {
		th, err := rt.Thread(s.mem, s.leads[tid])
		if err != nil {
			continue // it has ended
		}
		if q := s.request(th); q != nil {
			out = append(out, capture.ThreadRequest{TID: tid, Request: *q})
		}
	}
	return out
}

// led notes that a thread was seen running PHP.
func (s *session) led(tid int, tls remote.Addr) {
	s.leadMu.Lock()
	defer s.leadMu.Unlock()
	s.lead = tls
	if s.leads == nil {
		s.leads = make(map[int]remote.Addr)
	}
	if rt := s.runtime(); rt != nil && rt.ZTS {
		s.leads[tid] = tls
	}
}
