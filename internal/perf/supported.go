package perf

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// Supported tries everything that an observation needs, on this process and
// without setting a breakpoint, and says what is missing.
func Supported() error {
	s, err := Open(Options{PID: os.Getpid(), SampleEvery: time.Hour})
	if err != nil {
		return err
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return errors.Join(err, s.Close())
	}
	defer self.Close()
	st, err := self.Stat()
	if err != nil {
		return errors.Join(err, s.Close())
	}
	// Nothing of a program's last byte is code, so the kernel inserts nothing.
	attr := unix.PerfEventAttr{Type: s.typ, Size: attrSize, Sample: 1, Ext2: uint64(st.Size() - 1)}
	fd, err := openUprobe(&attr, fmt.Sprintf("/proc/self/fd/%d", self.Fd()), 0)
	if err == nil {
		err = unix.Close(fd)
	} else {
		err = refused("set a uprobe", err)
	}
	return errors.Join(err, s.Close())
}

const (
	// tries is how many copied hits prove that uprobes work, and tryFor how long
	// they may take on a machine that is busy with other things.
	tries    = 3
	tryFor   = 2 * time.Second
	tryPause = time.Millisecond
)

// ErrNoHits says that a breakpoint could be set and nothing was ever copied there.
var ErrNoHits = errors.New("nothing was copied")

// Try does to a process of our own, which reaches a place again and again, what
// an observation does: it returns how many hits were copied. The list that is
// followed is whatever is at an address; it need not be one.
func Try(ctx context.Context, pid int, at Point, list remote.Addr) (n int, err error) {
	s, err := Open(Options{
		PID: pid, Points: []Point{at}, SampleEvery: time.Hour,
		Follow: &Follow{Head: list, NodeSize: 48, DescSize: 8, Next: 0, Desc: 8, A: 16, B: 24, Flags: 32},
	})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.Watch([]int{pid}); err != nil {
		return 0, err
	}
	if err := s.Resume(tries); err != nil {
		return 0, err
	}
	for until := time.Now().Add(tryFor); n < tries && time.Now().Before(until) && ctx.Err() == nil; time.Sleep(tryPause) {
		if _, err := s.Read(func(*Sample) { n++ }); err != nil {
			return n, err
		}
	}
	if n == 0 && ctx.Err() == nil {
		return 0, fmt.Errorf("%w in %v", ErrNoHits, tryFor)
	}
	return n, ctx.Err()
}
