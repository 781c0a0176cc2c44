package main

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"time"
)

// stream sends counted signals to a worker: queued ones, whose values go up by
// one, and SIGUSR1, which is not queued and therefore waits for the one before.
type stream struct {
	w            *worker
	once         sync.Once
	quit, done   chan struct{}
	queued, usr1 uint64 // sent; to be read after done
	err          error
}

const streamEvery = time.Millisecond

func startStream(w *worker) *stream {
	s := &stream{w: w, quit: make(chan struct{}), done: make(chan struct{})}
	go s.run()
	return s
}

func (s *stream) run() {
	defer close(s.done)
	t := time.NewTicker(streamEvery)
	defer t.Stop()
	// php-fpm's workers have put back SIGUSR1's default action, which ends them.
	usr1 := s.w.kind != kindFPM && s.w.kind != kindMaster
	for {
		select {
		case <-s.quit:
			return
		case <-t.C:
		}
		for range 3 {
			err := sigqueue(s.w.pid, queued, int32(s.queued+1))
			if errors.Is(err, syscall.EAGAIN) {
				break // the queue is full
			}
			if err != nil {
				s.err = err
				return
			}
			s.queued++
		}
		if usr1 && s.w.page.get(wUsr1) == s.usr1 && syscall.Kill(s.w.pid, syscall.SIGUSR1) == nil {
			s.usr1++
		}
	}
}

func (s *stream) stop() {
	if s != nil {
		s.once.Do(func() { close(s.quit) })
		<-s.done
	}
}

// missing waits for all signals that were sent, and counts those that were lost
// or came in another order.
func (s *stream) missing(ctx context.Context) uint64 {
	if s == nil {
		return 0
	}
	p := s.w.page
	_ = until(ctx, s.w.limit, func() bool { return p.get(wQueued) >= s.queued && p.get(wUsr1) >= s.usr1 })
	return apart(s.queued, p.get(wQueued)) + apart(s.usr1, p.get(wUsr1)) + p.get(wDisorder)
}

func apart(a, b uint64) uint64 { return max(a, b) - min(a, b) }
