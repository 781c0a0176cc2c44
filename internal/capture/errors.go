package capture

import (
	"errors"
	"fmt"
	"strings"
)

// Reasons for which a file is refused, or cut short. They arrive wrapped in a *LineError.
var (
	// ErrTruncated: the file ends in the middle of a line or before the
	// capture's end line. What could be read comes with it.
	ErrTruncated = errors.New("the capture is cut off before its end")
	// ErrSchema: the file is no capture.
	ErrSchema = errors.New("is no phpwhy capture")
	// ErrNewer: it is a capture of a version that this program does not know.
	ErrNewer = errors.New("was written by a newer phpwhy")
	// ErrMany: it is a capture of many processes, where one of a single process is read.
	ErrMany = errors.New("is a capture of many processes")
	// ErrEmpty: there is nothing in the file.
	ErrEmpty = errors.New("is empty")
	// ErrLimit: something is larger than this package reads or writes.
	ErrLimit = errors.New("over the limit")
)

// LineError is a fault in a file, at its line (1 is the first).
type LineError struct {
	Line int
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

func (e *LineError) Unwrap() error { return e.Err }

func overLimit(what string, limit int64) error {
	return fmt.Errorf("%w: more than %d %s", ErrLimit, limit, what)
}

// Named says in one sentence what is wrong with a file.
func Named(name string, err error) error {
	for _, what := range []error{ErrEmpty, ErrSchema, ErrNewer, ErrMany} {
		if errors.Is(err, what) {
			return &fileError{name + " " + what.Error(), err}
		}
	}
	var at *LineError
	if errors.As(err, &at) && !errors.Is(err, ErrTruncated) {
		return &fileError{fmt.Sprintf("%s: line %d is damaged: %v", name, at.Line, at.Err), err}
	}
	return fmt.Errorf("%s: %w", name, err)
}

type fileError struct {
	text string
	err  error
}

func (e *fileError) Error() string { return e.text }
func (e *fileError) Unwrap() error { return e.err }

// foreign is the error for a file that begins with a schema which is not read.
func foreign(schema string) error {
	switch {
	case schema == SchemaMany:
		return fmt.Errorf("%w (%s)", ErrMany, schema)
	case strings.HasPrefix(schema, "phpwhy/capture/"):
		return fmt.Errorf("%w (%s)", ErrNewer, schema)
	}
	return fmt.Errorf("%w: its schema is %q", ErrSchema, schema)
}
