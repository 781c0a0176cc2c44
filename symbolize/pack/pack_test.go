package pack

import (
	"slices"
	"testing"
)

// write and read are the same in the same order; read gives what it got as words.
func write(w *Writer) {
	w.Number(300)
	w.Text("libc.so.6")
	w.Bool(true)
	w.Text("")
	w.Length(2)
	w.Text("libc.so.6")
	w.Raw([]byte{1, 2})
	w.Text("")
}

func read(r *Reader) []any {
	return []any{r.Number(), r.Text(), r.Bool(), r.Text(), r.Length(), r.Text(), string(r.Raw()), r.Text()}
}

func TestWhatWasWrittenIsRead(t *testing.T) {
	var w Writer
	write(&w)
	r := NewReader(w.Bytes())
	got := read(r)
	want := []any{uint64(300), "libc.so.6", true, "", 2, "libc.so.6", "\x01\x02", ""}
	if !slices.Equal(got, want) || !r.Done() {
		t.Errorf("got %v, done %v", got, r.Done())
	}
}

func TestWhatIsCutOffIsNoticed(t *testing.T) {
	var w Writer
	write(&w)
	for n := range w.Bytes() {
		r := NewReader(w.Bytes()[:n])
		read(r)
		if r.OK() || r.Done() {
			t.Errorf("%d of %d bytes will do", n, len(w.Bytes()))
		}
	}
	r := NewReader(append(slices.Clone(w.Bytes()), 0))
	read(r)
	if !r.OK() || r.Done() {
		t.Error("a byte too many is not noticed")
	}
}

// FuzzReader: whatever stands there, no text or length is larger than it.
func FuzzReader(f *testing.F) {
	var w Writer
	write(&w)
	f.Add(w.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(b)
		for _, v := range read(r) {
			switch v := v.(type) {
			case string:
				if len(v) > len(b) {
					t.Errorf("a text of %d bytes in %d", len(v), len(b))
				}
			case int:
				if v > len(b) {
					t.Errorf("%d things in %d bytes", v, len(b))
				}
			}
		}
	})
}
