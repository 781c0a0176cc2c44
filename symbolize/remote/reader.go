package remote

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Reader reads the target's memory. ReadMemory fills p from address at and
// returns how many bytes it got; when that is fewer than len(p) the error says
// why (a *ReadError). A failed read is never a zero value.
type Reader interface {
	ReadMemory(p []byte, at Addr) (int, error)
}

// ReaderFunc adapts a function to Reader.
type ReaderFunc func(p []byte, at Addr) (int, error)

// ReadMemory calls f.
func (f ReaderFunc) ReadMemory(p []byte, at Addr) (int, error) { return f(p, at) }

// ErrUnmapped says that nothing is mapped in the target at an address.
var ErrUnmapped = errors.New("no memory there")

// ErrNotCopied says that a copy of the target's memory ends before an address, or
// has nothing there because nothing is mapped.
var ErrNotCopied = errors.New("not among what was copied")

// ErrUnterminated says that a C string did not end within its limit.
var ErrUnterminated = errors.New("string is not terminated")

// ReadError is a read that returned fewer bytes than wanted.
type ReadError struct {
	At        Addr  // where the read began
	Want, Got int   // bytes
	Err       error // the cause: an errno, ErrUnmapped, …
}

func (e *ReadError) Error() string {
	return fmt.Sprintf("read %d bytes at %s: got %d: %v", e.Want, e.At, e.Got, e.Err)
}

func (e *ReadError) Unwrap() error { return e.Err }

// ReadFull fills p from at, or returns a *ReadError.
func ReadFull(r Reader, p []byte, at Addr) error {
	n, err := r.ReadMemory(p, at)
	if n == len(p) {
		return nil
	}
	var re *ReadError
	if errors.As(err, &re) {
		return err
	}
	if err == nil {
		err = ErrUnmapped
	}
	return &ReadError{At: at, Want: len(p), Got: n, Err: err}
}

// Uint64 reads a little-endian 64-bit word.
func Uint64(r Reader, at Addr) (uint64, error) {
	var b [8]byte
	if err := ReadFull(r, b[:], at); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

// Uint32 reads a little-endian 32-bit word.
func Uint32(r Reader, at Addr) (uint32, error) {
	var b [4]byte
	if err := ReadFull(r, b[:], at); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(b[:]), nil
}

// Uint8 reads one byte.
func Uint8(r Reader, at Addr) (uint8, error) {
	var b [1]byte
	if err := ReadFull(r, b[:], at); err != nil {
		return 0, err
	}
	return b[0], nil
}

// Pointer reads a 64-bit pointer.
func Pointer(r Reader, at Addr) (Addr, error) {
	v, err := Uint64(r, at)
	return Addr(v), err
}

// CString reads a NUL-terminated string of at most limit bytes, without the
// NUL. A longer one is returned cut, with ErrUnterminated.
func CString(r Reader, at Addr, limit int) (string, error) {
	var out []byte
	for len(out) < limit {
		// Never cross a page in one read: the next page may be unmapped
		// though the string ends before it.
		n := min(4096-int(at&4095), limit-len(out))
		chunk := make([]byte, n)
		got, err := r.ReadMemory(chunk, at)
		if i := bytes.IndexByte(chunk[:got], 0); i >= 0 {
			return string(append(out, chunk[:i]...)), nil
		}
		out = append(out, chunk[:got]...)
		if got < n {
			if err == nil {
				err = ErrUnmapped
			}
			return string(out), &ReadError{At: at, Want: n, Got: got, Err: err}
		}
		var ok bool
		if at, ok = at.Add(uint64(n)); !ok {
			return string(out), &ReadError{At: at, Want: n, Err: ErrUnmapped}
		}
	}
	return string(out), ErrUnterminated
}

// Region is a stretch of the target's memory, Len bytes from At.
type Region struct {
	At  Addr
	Len int
}

// Prefetcher is a Reader that can be told what will be read next, so that many
// small reads become few large ones. Regions that can't be read are left out;
// the later ReadMemory says so.
type Prefetcher interface {
	Reader
	Prefetch(regions []Region)
}

// Prefetch tells r what will be read, when r wants to know.
func Prefetch(r Reader, regions []Region) {
	if p, ok := r.(Prefetcher); ok {
		p.Prefetch(regions)
	}
}
