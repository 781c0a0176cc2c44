package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/observe"
	"github.com/phpwhy/phpwhy/internal/target"
	"github.com/phpwhy/phpwhy/internal/triage"
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
	// many is a capture of many processes, from which one is to be chosen. capture is
	// nil then.
	many *manyInput
}

// manyInput is a capture of "phpwhy collect", sorted.
type manyInput struct {
	build *triage.Builder
	model *triage.Model
}

// worker is what was seen of one of the processes.
func (in *input) worker(i int) *input {
	m := in.many
	return &input{name: in.name, capture: m.build.One(m.model, i), cut: in.cut}
}

// workers are all of them, in turn; of a capture of one process, that one.
func (in *input) workers() []*input {
	if in.many == nil {
		return []*input{in}
	}
	out := make([]*input, len(in.many.model.Workers))
	for i := range out {
		out[i] = in.worker(i)
	}
	return out
}

// ofPID is the process of that number; of a capture with a single one pid may be 0.
func (in *input) ofPID(pid int) (*input, error) {
	if in.many == nil {
		if pid != 0 && pid != in.capture.Target.PID {
			return nil, &dataError{fmt.Errorf("%s has pid %d, not %d", in.name, in.capture.Target.PID, pid)}
		}
		return in, nil
	}
	ws := in.many.model.Workers
	found, pids := -1, make([]string, len(ws))
	for i := range ws {
		pids[i] = in.many.model.PID(ws[i].Host, ws[i].PID)
		if ws[i].PID == pid || pid == 0 && len(ws) == 1 {
			found = i
		}
	}
	if found < 0 {
		if n := len(pids) - maxPIDsNamed; n > 0 {
			pids = append(pids[:maxPIDsNamed:maxPIDsNamed], fmt.Sprintf("%d more", n))
		}
		return nil, &dataError{fmt.Errorf("%s has several workers; choose one with --pid: %s", in.name, strings.Join(pids, ", "))}
	}
	return in.worker(found), nil
}

// maxPIDsNamed is how many pids a message lists.
const maxPIDsNamed = 20

// readOne reads a file of which one process is wanted.
func readOne(name string, stdin io.Reader, pid int) (*input, error) {
	in, err := readInput(name, stdin)
	if err != nil {
		return nil, err
	}
	return in.ofPID(pid)
}

func (in *input) observe() *rules.Observation { return capture.Observe(in.capture) }

// readInput reads a file, or standard input for "-": a capture of phpwhy, of either
// version, or what gdb, eu-stack or strace -k printed.
func readInput(name string, stdin io.Reader) (*input, error) {
	r := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, &dataError{err}
		}
		defer f.Close()
		if st, err := f.Stat(); err == nil && st.IsDir() {
			return nil, usageErrorf("%s is a folder; name a capture", name)
		}
		r = f
	}
	in := &input{name: name}
	if err := in.read(r); err != nil {
		var damaged *triage.DamagedError
		if !errors.As(err, &damaged) {
			return nil, &dataError{err}
		}
		in.cut = err
	}
	return in, nil
}

func (in *input) read(r io.Reader) error {
	z, err := capture.Decompress(r)
	if err != nil {
		return capture.Named(in.name, err)
	}
	defer z.Close()
	br := bufio.NewReader(z)
	head, err := br.Peek(headerPeek)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return capture.Named(in.name, err)
	}
	head, _, _ = bytes.Cut(head, []byte("\n"))
	switch {
	case len(head) == 0 && errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%s: %w: not even its first part is whole", in.name, capture.ErrTruncated)
	case len(head) == 0 && err != nil:
		return capture.Named(in.name, capture.ErrEmpty)
	case bytes.HasPrefix(head, []byte("\x7fELF")):
		if in.name == "-" {
			return errors.New("a core file can't be read from standard input; name the file")
		}
		if in.capture, err = observe.New().Core(context.Background(), in.name, target.CoreOptions{}); err != nil {
			return err // it names the file
		}
		return nil
	case bytes.HasPrefix(head, []byte("{")) && bytes.Contains(head, []byte(`"`+capture.SchemaMany+`"`)):
		return in.readMany(br)
	case bytes.HasPrefix(head, []byte(`{"schema":"phpwhy/capture/`)) && !bytes.Contains(head, []byte(`"`+capture.Schema+`"`)):
		return capture.Named(in.name, capture.ErrNewer)
	case bytes.HasPrefix(head, []byte("{")):
		in.capture, err = capture.Read(br)
		if errors.Is(err, capture.ErrTruncated) && in.capture != nil && len(in.capture.Events) > 0 {
			in.cut, err = err, nil
		}
		if err != nil {
			return capture.Named(in.name, err)
		}
		return nil
	}
	in.pasted = true
	if in.text, err = io.ReadAll(io.LimitReader(br, maxPaste+1)); err != nil {
		return fmt.Errorf("%s: %w", in.name, err)
	}
	o, err := rules.ParseBacktrace(string(in.text))
	if errors.Is(err, rules.ErrNoStacks) {
		return fmt.Errorf("%s has system calls without stacks: record it with strace -k, or better, run phpwhy attach", in.name)
	}
	if errors.Is(err, rules.ErrNoBacktrace) {
		return fmt.Errorf("%s is neither a capture of phpwhy nor a backtrace of gdb, eu-stack or strace -k", in.name)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", in.name, err)
	}
	in.capture = capture.Pasted(o)
	return nil
}

// headerPeek is how much of a capture's first line is looked at, in bytes, to know
// its version.
const headerPeek = 2048

// readMany reads captures of many processes.
func (in *input) readMany(r io.Reader) error {
	b := triage.NewBuilder()
	err := b.Read(in.name, capture.NewStream(r))
	var damaged *triage.DamagedError
	if err != nil && !errors.As(err, &damaged) {
		return err
	}
	m := b.Model(nil, time.Time{})
	if len(m.Workers) == 0 {
		return fmt.Errorf("%s has no look at a worker", in.name)
	}
	if in.many = (&manyInput{b, m}); m.Sources[0].Truncated && err == nil {
		in.cut = capture.ErrTruncated
	}
	return err
}

// openCapture reads a test's capture.
func openCapture(path string) (*rules.Observation, error) {
	in, err := readOne(path, nil, 0)
	if err != nil {
		return nil, err
	}
	return in.observe(), nil
}
