package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// pollEvery is how often --watch looks for changes.
	pollEvery = 400 * time.Millisecond
	// maxWatched bounds the files that it looks at.
	maxWatched = 20_000
)

// watching runs a check once, or again whenever a file changes below what was named:
// the arguments, or else the search path, and --rules. The last run's result is the
// result.
func (f *rulesFlags) watching(ctx context.Context, s streams, watch bool, args []string, check func() error) error {
	if !watch {
		return check()
	}
	paths := args
	if len(args) == 0 {
		paths = searchPath()
	}
	paths = folders(slices.Concat(paths, f.dirs))
	// What changes while the first check runs is checked again.
	seen := fingerprint(paths)
	err := check()
	for _, a := range args {
		if _, missing := os.Stat(a); missing != nil {
			return err // a misspelt name won't mend itself
		}
	}
	for {
		var failed *checkError
		if err != nil {
			fmt.Fprintf(s.err, "phpwhy: %s\n", oneLine(err))
		}
		fmt.Fprintln(s.err, "watching; Ctrl-C ends")
		for {
			select {
			case <-ctx.Done():
				if err != nil && !errors.As(err, &failed) {
					return err
				}
				if err != nil {
					return &silentError{err}
				}
				return nil
			case <-time.After(pollEvery):
			}
			if now := fingerprint(paths); now != seen {
				seen = now
				break
			}
		}
		fmt.Fprintf(s.err, "\n%s\n", time.Now().Format("15:04:05"))
		err = check()
	}
}

// folders are the paths, with a file's folder in its place: its test and its
// captures are there.
func folders(paths []string) []string {
	out := make([]string, len(paths))
	for i, p := range paths {
		out[i] = p
		if st, err := os.Stat(p); err == nil && !st.IsDir() {
			out[i] = filepath.Dir(p)
		}
	}
	return out
}

// fingerprint changes with the names, sizes and times of files. What can't be
// read counts as absent.
func fingerprint(paths []string) string {
	h := uint64(14695981039346656037)
	mix := func(s string) {
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * 1099511628211
		}
	}
	files := 0
	for _, p := range paths {
		_ = filepath.WalkDir(p, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return nil
			}
			if e.IsDir() && path != p && strings.HasPrefix(e.Name(), ".") {
				return fs.SkipDir // as rules are not looked for there
			}
			if files++; files > maxWatched {
				return fs.SkipAll
			}
			if st, err := os.Stat(path); err == nil && !st.IsDir() {
				mix(fmt.Sprintf("%s %d %d\n", path, st.Size(), st.ModTime().UnixNano()))
			}
			return nil
		})
	}
	return fmt.Sprint(h)
}
