package capture

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFilesAreTheOwnersAloneAndReadBack(t *testing.T) {
	for _, name := range []string{"c.jsonl", "c.jsonl.zst"} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), name)
			// A wide-open file with longer contents lies there already.
			if err := os.WriteFile(path, bytes.Repeat([]byte("old"), 1<<16), 0o666); err != nil {
				t.Fatal(err)
			}
			want := sampleCapture()
			o, err := Create(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := Write(o, want); err != nil {
				t.Fatal(err)
			}
			if err := o.Close(); err != nil {
				t.Fatal(err)
			}
			st, err := os.Stat(path)
			if err != nil || st.Mode().Perm() != 0o600 {
				t.Errorf("mode %v, %v; want 0600", st.Mode().Perm(), err)
			}
			raw, err := os.ReadFile(path)
			if err != nil || bytes.HasPrefix(raw, zstdMagic) != (name == "c.jsonl.zst") {
				t.Errorf("%s begins with % x (%v)", name, raw[:4], err)
			}
			if d := cmp.Diff(want, readFile(t, path, nil)); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestACompressedFileOfAKilledWriterIsReadableUpToItsLastFlush: what Flush
// returned for must survive the process.
func TestACompressedFileOfAKilledWriterIsReadableUpToItsLastFlush(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.zst")
	o, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	w, err := NewWriter(o, sampleCapture().Target)
	if err != nil {
		t.Fatal(err)
	}
	id, err := w.Stack(concatStack(6))
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		if err := w.Event(Event{Kind: Stop, Stack: id, Args: []uint64{1, 2, 3}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	c := readFile(t, path, ErrTruncated)
	if len(c.Events) != 1000 || c.Observation.Stops != 1000 {
		t.Errorf("%d events, observation %+v; want 1000", len(c.Events), c.Observation)
	}
}

func TestACompressedFileCutAnywhereIsSaidToBe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.zst")
	o, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(Write(o, sampleCapture()), o.Close()); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// From inside the magic number on the text is no JSON, hence not "cut".
	for n := len(zstdMagic); n < len(raw); n++ {
		r, err := Decompress(bytes.NewReader(raw[:n]))
		if err == nil {
			_, err = Read(r)
			r.Close()
		}
		if !errors.Is(err, ErrTruncated) {
			t.Fatalf("cut at %d of %d: %v", n, len(raw), err)
		}
	}
}

func readFile(t *testing.T, path string, want error) *Capture {
	t.Helper()
	r, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c, err := Read(r)
	if !errors.Is(err, want) {
		t.Fatalf("Read: %v, want %v", err, want)
	}
	return c
}
