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
	// unfinished begins the name of the folder of a capture that is being written.
	unfinished = ".phpwhy-unfinished-"
)

var unfinishedName = regexp.MustCompile(`^\.phpwhy-unfinished-[0-9]+$`)

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
	tmp, err := os.MkdirTemp(s.Dir, unfinished)
	if err != nil {
		return err
	}
	if err := os.Remove(tmp); err != nil {
		return err
	}
	ents, err := os.ReadDir(s.Dir)
	if err != nil {
		return err
	}
	for _, e := range ents {
		if e.IsDir() && unfinishedName.MatchString(e.Name()) {
			s.clean(filepath.Join(s.Dir, e.Name()))
		}
	}
	return nil
}

// clean removes an unfinished capture and its folder, and leaves both when
// there is anything else in it.
func (s *Store) clean(dir string) {
	ents, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range ents {
		if captureName.MatchString(e.Name()) && e.Type().IsRegular() {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
	_ = os.Remove(dir)
}

// Write writes a capture and returns its path. The name appears when the file
// is complete. Until then it is in a folder that nobody else can get into: in a
// folder like /tmp somebody could put a link in its way.
func (s *Store) Write(c *capture.Capture, at time.Time) (string, error) {
	name := fmt.Sprintf("phpwhy-%s-%d.jsonl.zst", at.UTC().Format(captureTime), c.Target.PID)
	dir, err := os.MkdirTemp(s.Dir, unfinished)
	if err != nil {
		return "", err
	}
	defer s.clean(dir)
	tmp, path := filepath.Join(dir, name), filepath.Join(s.Dir, name)
	out, err := capture.Create(tmp)
	if err != nil {
		return "", err
	}
	if err := errors.Join(capture.Write(out, c), out.Close()); err != nil {
		return "", err
	}
	if err := os.Rename(tmp, path); err != nil {
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
