package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/observe"
	"github.com/phpwhy/phpwhy/internal/target"
	"github.com/phpwhy/phpwhy/rules"
)

// maxPaste bounds pasted text in bytes.
const maxPaste = 64 << 20

// input is a capture, or stacks that were pasted.
type input struct {
	name    string
	capture *capture.Capture
	pasted  bool
	text    []byte // of what was pasted
	cut     error  // why a capture is not whole
}

func (in *input) observe() *rules.Observation { return capture.Observe(in.capture) }

// readInput reads a file, or standard input for "-": a capture of phpwhy or
// what gdb, eu-stack or strace -k printed.
func readInput(name string, stdin io.Reader) (*input, error) {
	r := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, &usageError{err}
		}
		defer f.Close()
		if st, err := f.Stat(); err == nil && st.IsDir() {
			return nil, usageErrorf("%s is a folder; name a capture", name)
		}
		r = f
	}
	in := &input{name: name}
	if err := in.read(r); err != nil {
		return nil, &usageError{fmt.Errorf("%s: %w", name, err)}
	}
	return in, nil
}

func (in *input) read(r io.Reader) error {
	z, err := capture.Decompress(r)
	if err != nil {
		return err
	}
	defer z.Close()
	br := bufio.NewReader(z)
	head, err := br.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	switch {
	case bytes.HasPrefix(head, []byte("\x7fELF")):
		if in.name == "-" {
			return errors.New("a core file can't be read from standard input; name the file")
		}
		in.capture, err = observe.New().Core(context.Background(), in.name, target.CoreOptions{})
		return err
	case bytes.HasPrefix(head, []byte("{")):
		in.capture, err = capture.Read(br)
		if errors.Is(err, capture.ErrTruncated) && in.capture != nil && len(in.capture.Events) > 0 {
			in.cut, err = err, nil
		}
		return err
	}
	in.pasted = true
	if in.text, err = io.ReadAll(io.LimitReader(br, maxPaste+1)); err != nil {
		return err
	}
	o, err := rules.ParseBacktrace(string(in.text))
	if errors.Is(err, rules.ErrNoBacktrace) {
		return errors.New("neither a capture of phpwhy nor a backtrace of gdb, eu-stack or strace -k")
	}
	if err != nil {
		return err
	}
	in.capture = capture.Pasted(o)
	return nil
}

// openCapture reads a test's capture.
func openCapture(path string) (*rules.Observation, error) {
	in, err := readInput(path, nil)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	return in.observe(), nil
}
