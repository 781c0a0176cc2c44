package daemon

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/stack"
)

func sample(pid int) *capture.Capture {
	return &capture.Capture{
		Target:      capture.Target{PID: pid, Cmdline: "php-fpm: pool www", SAPI: "fpm-fcgi", PHPVersion: "8.2.36"},
		Observation: capture.Observation{Engine: "hwbp", Samples: 1, Ended: "duration", PausedUSTotal: 10},
		Stacks:      []stack.Stack{{End: stack.Root, Frames: []stack.Frame{{Kind: stack.PHP, Function: "spin", File: "/srv/a.php", Line: 3}}}},
		Events:      []capture.Event{{Kind: capture.Sample, TID: pid}},
	}
}

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func names(t *testing.T, dir string) []string {
	t.Helper()
	ents, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range ents {
		out = append(out, e.Name())
	}
	return out
}

func TestStoreKeepsTheNewestAndTouchesNothingElse(t *testing.T) {
	dir := t.TempDir()
	others := []string{
		"a.jsonl.zst", "phpwhy-20200101T000000.000Z-1.jsonl", "phpwhy-20200101T000000.000Z-1.jsonl.zst.bak", "xphpwhy-20200101T000000.000Z-1.jsonl.zst",
		"phpwhy-2020-1.jsonl.zst", ".phpwhy-unfinished-notes", ".phpwhy-unfinished-1",
	}
	for _, n := range others {
		if err := os.WriteFile(filepath.Join(dir, n), make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// What looks like a capture and is none of our making: a folder, a link.
	outside := filepath.Join(t.TempDir(), "outside")
	folder, link := "phpwhy-20200101T000000.000Z-2.jsonl.zst", "phpwhy-20200101T000000.000Z-3.jsonl.zst"
	if err := os.Mkdir(filepath.Join(dir, folder), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, link)); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, ".phpwhy-unfinished-123")
	if err := os.Mkdir(left, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(left, "phpwhy-20200101T000000.000Z-4.jsonl.zst"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := &Store{Dir: dir, MaxFiles: 2, MaxBytes: 1 << 20}
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	var last []string
	for i := range 4 {
		path, err := s.Write(sample(i+1), noon.Add(time.Duration(i)*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		last = append(last, filepath.Base(path))
	}
	want := slices.Concat(others, []string{folder, link}, last[2:])
	slices.Sort(want)
	if got := names(t, dir); !slices.Equal(got, want) {
		t.Errorf("left are %q, want %q", got, want)
	}
	if last[3] != "phpwhy-20260102T120003.000Z-4.jsonl.zst" {
		t.Errorf("a capture is called %s", last[3])
	}
	if n, bytes := s.Usage(); n != 2 || bytes <= 0 || bytes > 4096 {
		t.Errorf("%d captures with %d bytes, want 2", n, bytes)
	}
	st, err := os.Stat(filepath.Join(dir, last[3]))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v (%v), want 0600", st.Mode(), err)
	}
	r, err := capture.Open(filepath.Join(dir, last[3]))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if c, err := capture.Read(r); err != nil || c.Target.PID != 4 {
		t.Errorf("read back: %+v, %v", c, err)
	}
}

func TestStoreKeepsToItsSize(t *testing.T) {
	s := &Store{Dir: t.TempDir(), MaxFiles: 100, MaxBytes: 1 << 30}
	if _, err := s.Write(sample(1), noon); err != nil {
		t.Fatal(err)
	}
	_, one := s.Usage()
	s.MaxBytes = 2*one + one/2
	for i := range 5 {
		if _, err := s.Write(sample(1), noon.Add(time.Duration(i+1)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	if n, bytes := s.Usage(); n != 2 || bytes > s.MaxBytes {
		t.Errorf("%d captures with %d bytes, want 2 with at most %d", n, bytes, s.MaxBytes)
	}
}

func TestStoreDoesNotFollowALinkInItsWay(t *testing.T) {
	s := &Store{Dir: t.TempDir(), MaxFiles: 2, MaxBytes: 1 << 20}
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(s.Dir, "phpwhy-20260102T120000.000Z-1.jsonl.zst")
	if err := os.Symlink(victim, path); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Write(sample(1), noon); err != nil || got != path {
		t.Fatal(got, err)
	}
	if b, err := os.ReadFile(victim); err != nil || string(b) != "precious" {
		t.Errorf("the link's target is %q (%v)", b, err)
	}
	if st, err := os.Lstat(path); err != nil || !st.Mode().IsRegular() {
		t.Errorf("%s is %v (%v), want a file in the link's place", path, st.Mode(), err)
	}
}

func TestStoreThatCantBeWrittenSaysSo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (&Store{Dir: file}).Check(); err == nil {
		t.Error("a file was taken for a folder")
	}
}
