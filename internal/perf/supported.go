package perf

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
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
