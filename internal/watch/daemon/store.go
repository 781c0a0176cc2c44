package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
)

// captureName is what captures in the folder are called, and nothing else: only
// such files are ever removed. Sorted by name they are sorted by time.
var captureName = regexp.MustCompile(`^phpwhy-[0-9]{8}T[0-9]{6}\.[0-9]{3}Z-[0-9]+\.jsonl\.zst$`)

const (
	captureTime = "20060102T150405.000Z"
	// unfinished begins the name of a capture that is being written.
	unfinished = ".unfinished-"
)

// Store keeps captures in a folder, the newest of them.
type Store struct {
	Dir      string
	MaxFiles int   // at least 1
	MaxBytes int64 // of all files together
}

// Check makes the folder if it is missing, and sees whether files can be made
// in it. What a phpwhy that was killed has left unfinished is removed.
func (s *Store) Check() error {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(s.Dir, unfinished+"*")
	if err != nil {
		return err
	}
	_ = f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return err
	}
	ents, err := os.ReadDir(s.Dir)
	if err != nil {
		return err
	}
	for _, e := range ents {
		if rest, ok := strings.CutPrefix(e.Name(), unfinished); ok && e.Type().IsRegular() && captureName.MatchString(rest) {
			_ = os.Remove(filepath.Join(s.Dir, e.Name()))
		}
	}
	return nil
}

// Write writes a capture and returns its path. The name appears when the file
// is complete.
func (s *Store) Write(c *capture.Capture, at time.Time) (string, error) {
	name := fmt.Sprintf("phpwhy-%s-%d.jsonl.zst", at.UTC().Format(captureTime), c.Target.PID)
	tmp, path := filepath.Join(s.Dir, unfinished+name), filepath.Join(s.Dir, name)
	// Whatever has that name is no file of ours that is still being written.
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	out, err := capture.Create(tmp)
	if err != nil {
		return "", err
	}
	err = errors.Join(capture.Write(out, c), out.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp)
		return "", err
	}
	return path, s.prune()
}

// prune removes the oldest captures until the bounds hold.
func (s *Store) prune() error {
	files, err := s.files()
	if err != nil {
		return err
	}
	total := int64(0)
	for _, f := range files {
		total += f.size
	}
	var errs []error
	for i := 0; i < len(files) && (len(files)-i > s.MaxFiles || total > s.MaxBytes); i++ {
		if err := os.Remove(filepath.Join(s.Dir, files[i].name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		total -= files[i].size
	}
	return errors.Join(errs...)
}

type stored struct {
	name string
	size int64
}

// files are the captures in the folder, oldest first.
func (s *Store) files() ([]stored, error) {
	ents, err := os.ReadDir(s.Dir)
	if err != nil {
		return nil, err
	}
	var out []stored
	for _, e := range ents {
		if !captureName.MatchString(e.Name()) || !e.Type().IsRegular() {
			continue
		}
		if st, err := e.Info(); err == nil {
			out = append(out, stored{e.Name(), st.Size()})
		}
	}
	slices.SortFunc(out, func(a, b stored) int { return strings.Compare(a.name, b.name) })
	return out, nil
}

// Usage is how many captures there are, and their bytes.
func (s *Store) Usage() (files int, bytes int64) {
	list, err := s.files()
	if err != nil {
		return 0, 0
	}
	for _, f := range list {
		bytes += f.size
	}
	return len(list), bytes
}
