// Package pack writes and reads numbers and texts in few bytes and little time:
// for what one build of a program writes and the same build reads.
//
// Contract: a number is a uvarint (encoding/binary), bytes are their length and
// themselves. A text that occurs again is the number of its first occurrence.
// Reading has a sticky error: what is read behind damage is zero, and OK tells.
//
// Hazard: the bytes may be damaged. Length never gives more than there are bytes
// left, so that what is made room for is bounded by what was read.
//
// Non-goal: it knows no types and no versions; who writes puts one in front.
package pack

import "encoding/binary"

// Writer collects bytes. Its zero value is empty.
type Writer struct {
	b     []byte
	texts map[string]uint64 // by text, the number of its first occurrence, from 1
}

// Bytes is what was written.
func (w *Writer) Bytes() []byte { return w.b }

// Number writes a number.
func (w *Writer) Number(n uint64) { w.b = binary.AppendUvarint(w.b, n) }

// Length writes how many things follow, of which each takes a byte at least.
func (w *Writer) Length(n int) { w.Number(uint64(n)) }

// Raw writes bytes.
func (w *Writer) Raw(b []byte) {
	w.Length(len(b))
	w.b = append(w.b, b...)
}

// Text writes a text: 0 and itself, or where it stands already.
func (w *Writer) Text(s string) {
	if n, ok := w.texts[s]; ok {
		w.Number(n)
		return
	}
	if w.texts == nil {
		w.texts = make(map[string]uint64)
	}
	w.texts[s] = uint64(len(w.texts)) + 1
	w.Number(0)
	w.Raw([]byte(s))
}

// Bool writes a truth value.
func (w *Writer) Bool(v bool) {
	n := uint64(0)
	if v {
		n = 1
	}
	w.Number(n)
}

// Reader reads what a Writer has written, in the same order.
type Reader struct {
	b     []byte
	bad   bool
	texts []string
}

// NewReader reads b, which must not be changed afterwards.
func NewReader(b []byte) *Reader { return &Reader{b: b} }

// OK reports whether everything so far was there.
func (r *Reader) OK() bool { return !r.bad }

// Done reports whether everything was there, and nothing is left.
func (r *Reader) Done() bool { return !r.bad && len(r.b) == 0 }

// Fail has everything that follows be zero: for a number that makes no sense.
func (r *Reader) Fail() { r.bad, r.b = true, nil }

// Number reads a number.
func (r *Reader) Number() uint64 {
	n, k := binary.Uvarint(r.b)
	if k <= 0 {
		r.Fail()
		return 0
	}
	r.b = r.b[k:]
	return n
}

// Length reads how many things follow: no more than there are bytes left.
func (r *Reader) Length() int {
	n := r.Number()
	if n > uint64(len(r.b)) {
		r.Fail()
		return 0
	}
	return int(n)
}

// Raw reads bytes. They are those that NewReader was given.
func (r *Reader) Raw() []byte {
	n := r.Length()
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

// Text reads a text.
func (r *Reader) Text() string {
	switch n := r.Number(); {
	case r.bad:
		return ""
	case n == 0:
		s := string(r.Raw())
		r.texts = append(r.texts, s)
		return s
	case n > uint64(len(r.texts)):
		r.Fail()
		return ""
	default:
		return r.texts[n-1]
	}
}

// Bool reads a truth value.
func (r *Reader) Bool() bool { return r.Number() != 0 }
