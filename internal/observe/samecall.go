package observe

import "time"

// sameCall measures for how long one call of an internal function was seen to
// last.
type sameCall struct {
	threads map[int]*lasting
	most    time.Duration
	seen    bool // PHP frames were there to compare
	// longest is the longest string that was an argument of an internal
	// function, in bytes.
	longest uint64
	called  bool // internal functions were seen, with their arguments
}

// lasting is the call that a thread is in.
type lasting struct {
	state uint64
	since time.Duration
}

// see takes the state of a thread's innermost call; ok is false when that is
// PHP code.
func (c *sameCall) see(tid int, at time.Duration, state uint64, ok bool) {
	c.seen = true
	if !ok {
		delete(c.threads, tid)
		return
	}
	l := c.threads[tid]
	if l == nil || l.state != state {
		if c.threads == nil {
			c.threads = make(map[int]*lasting)
		}
		c.threads[tid] = &lasting{state, at}
		return
	}
	c.most = max(c.most, at-l.since)
}
