package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// ErrNotLoopback says that an address is reachable from elsewhere.
var ErrNotLoopback = errors.New("is not an address of this host alone (127.0.0.1:PORT, [::1]:PORT)")

// Listen listens for HTTP, on loopback unless anywhere is set: metrics name
// rules and failures of this host, and nobody is asked who they are. Call it
// while the capabilities are still there.
func Listen(addr string, anywhere bool) (net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if !anywhere {
		// A name could mean another address in a moment.
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return nil, fmt.Errorf("%s %w", addr, ErrNotLoopback)
		}
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	// The address that was got counts: hosts files have surprises.
	if a, ok := l.Addr().(*net.TCPAddr); !anywhere && (!ok || !a.IP.IsLoopback()) {
		_ = l.Close()
		return nil, fmt.Errorf("%s %w", addr, ErrNotLoopback)
	}
	return l, nil
}

const (
	httpTimeout = 10 * time.Second
	maxHeader   = 8 << 10
	// closeWithin is how long requests in progress may take at the end.
	closeWithin = 200 * time.Millisecond
)

// serve answers until the function that it returns is called.
func (d *Daemon) serve(l net.Listener) (stop func()) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_ = d.counts.write(w, time.Now())
	})
	mux.HandleFunc("GET /healthz", answer(d.healthy))
	mux.HandleFunc("GET /readyz", answer(d.readiness))
	s := &http.Server{
		Handler: mux, ReadTimeout: httpTimeout, WriteTimeout: httpTimeout, IdleTimeout: httpTimeout, MaxHeaderBytes: maxHeader,
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			d.failed("listener", err)
		}
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
		defer cancel()
		if s.Shutdown(ctx) != nil {
			_ = s.Close()
		}
		<-done
	}
}

// answer says "ok", or 503 and why not.
func answer(check func(time.Time) error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if err := check(time.Now()); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, err)
			return
		}
		fmt.Fprintln(w, "ok")
	}
}

// The limits beyond which the watch is not healthy.
const (
	staleTicks = 10 // in units of Options.Every, and at least staleAtLeast
	// overdue is what an observation may take beyond its time.
	overdue      = time.Minute
	staleAtLeast = 30 * time.Second
)

// healthy reports why the watch has got stuck, nil when it has not.
func (d *Daemon) healthy(now time.Time) error {
	d.counts.mu.Lock()
	defer d.counts.mu.Unlock()
	c := d.counts
	if !c.lastTick.IsZero() && now.Sub(c.lastTick) > max(staleTicks*d.opt.Every, staleAtLeast) {
		return fmt.Errorf("the last look at the workers was %v ago", now.Sub(c.lastTick).Round(time.Second))
	}
	if c.running && now.Sub(c.since) > d.opt.Observe+overdue {
		return fmt.Errorf("an observation has lasted %v", now.Sub(c.since).Round(time.Second))
	}
	return nil
}

// readiness reports why the watch does not watch yet.
func (d *Daemon) readiness(now time.Time) error {
	d.counts.mu.Lock()
	ready := d.counts.ready
	d.counts.mu.Unlock()
	if !ready {
		return errors.New("the workers have not been looked at yet")
	}
	return d.healthy(now)
}
