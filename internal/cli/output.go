package cli

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"syscall"
)

// result is standard output. It remembers that a write failed, for commands that
// print line after line and the help that cobra prints: a result that a full disk
// has cut off must not end with exit code 0.
type result struct {
	w   io.Writer
	mu  sync.Mutex
	err error // the first
}

func (r *result) Write(p []byte) (int, error) {
	n, err := r.w.Write(p)
	if err != nil && !errors.Is(err, syscall.EPIPE) { // a reader that has left wants no more
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.err == nil {
			r.err = err
		}
	}
	return n, err
}

func (r *result) failed() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		return nil
	}
	return &dataError{r.err}
}

// isCause reports whether a command failed because of its output.
func (r *result) isCause(err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err != nil && errors.Is(err, r.err)
}

// asFile is the file behind a stream, if it is one.
func asFile(w io.Writer) (*os.File, bool) {
	if r, ok := w.(*result); ok {
		w = r.w
	}
	f, ok := w.(*os.File)
	return f, ok
}

// unremembered is a stream whose failed writes are the command's own affair.
func unremembered(w io.Writer) io.Writer {
	if r, ok := w.(*result); ok {
		return r.w
	}
	return w
}

// wipe clears the line of a terminal that a progress was on.
func wipe() string {
	if os.Getenv("TERM") == "dumb" {
		return "\r" + strings.Repeat(" ", 72) + "\r"
	}
	return "\r\x1b[K"
}

// reason is what is wrong with a file, without its name, which may be one that only
// phpwhy knows.
func reason(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
