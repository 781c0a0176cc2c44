package capture

import (
	"errors"
	"fmt"
)

// Reasons for which a file is refused, or cut short. They arrive wrapped in a *LineError.
var (
	// ErrTruncated: the file ends in the middle of a line or before the
	// capture's end line. What could be read comes with it.
	ErrTruncated = errors.New("the capture is cut off before its end")
	// ErrSchema: the file is no capture, or one of another version.
	ErrSchema = errors.New("not a " + Schema + " file")
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
