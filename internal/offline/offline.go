// Package offline names the native frames of a capture that was taken where there
// were no symbols, from files of the same build that are here.
//
// Contract: a file counts only when its build-id is the one in the capture. A
// frame that was named and can't be named here keeps its name.
//
// Non-goal: it downloads nothing.
package offline

import (
	"cmp"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/symbolize"
)

// systemDebug is where distributions put separate debug files.
const systemDebug = "/usr/lib/debug"

// Namer names frames. It is not safe for concurrent use.
type Namer struct {
	dirs  []string
	known map[capture.Binary]*symbolize.Binary // nil for what was not found
	// Missing are the binaries that no file was found for, and why where there
	// was one that could not be read.
	Missing map[string]error
}

// New looks for files in dirs, in /usr/lib/debug, and where the capture says that
// they were.
func New(dirs []string) *Namer {
	return &Namer{dirs: dirs, known: make(map[capture.Binary]*symbolize.Binary), Missing: make(map[string]error)}
}

// Close closes the files.
func (n *Namer) Close() error {
	var errs []error
	for _, b := range n.known {
		if b != nil {
			errs = append(errs, b.Close())
		}
	}
	return errors.Join(errs...)
}

// Stack names the frames of a stack anew; of tells about the binary of a place.
func (n *Namer) Stack(s *capture.PlacedStack, of func(i int) (path, buildID string)) {
	var frames []stack.Frame
	var places []capture.Place
	from := 0 // in frames: the calls inlined into the frame that comes next
	for i := range s.Frames {
		f, p := s.Frames[i], s.Places[i]
		var named []symbolize.Frame
		if f.Kind == stack.Native && !f.Inlined && f.How != string(symbolize.HowTailCall) && p.Binary != capture.NoBinary {
			if b := n.binary(of(p.Binary)); b != nil {
				named = b.Name(p.Addr, p.Exact)
			}
		}
		if last := len(named) - 1; last >= 0 && named[last].Function != "" {
			// What was inlined is known better now.
			frames, places = frames[:from], places[:from]
			for j := range named {
				frames, places = append(frames, renamed(f, &named[j], j == last)), append(places, p)
			}
		} else {
			frames, places = append(frames, f), append(places, p)
		}
		if !f.Inlined {
			from = len(frames)
		}
	}
	s.Frames, s.Places = frames, places
}

// renamed is a frame with what a file says about its address.
func renamed(f stack.Frame, n *symbolize.Frame, physical bool) stack.Frame {
	f.Function, f.Raw, f.File, f.Line, f.Offset = n.Function, n.Raw, cmp.Or(n.File, f.File), n.Line, n.Offset
	if !physical {
		f.Inlined, f.How, f.Args = true, string(symbolize.HowInline), nil
	}
	return f
}

func (n *Namer) binary(path, id string) *symbolize.Binary {
	k := capture.Binary{Path: path, BuildID: id}
	if b, ok := n.known[k]; ok {
		return b
	}
	b, err := n.find(path, id)
	n.known[k] = b
	if b == nil && strings.HasPrefix(path, "/") {
		n.Missing[path] = err
	}
	return b
}

// find prefers debug files: they say most.
func (n *Namer) find(path, id string) (*symbolize.Binary, error) {
	if len(id) < 4 {
		return nil, errors.New("it has no build-id")
	}
	head, tail := id[:2], id[2:]
	dirs := append(slices.Clone(n.dirs), systemDebug)
	var paths []string
	for _, d := range dirs {
		paths = append(paths, filepath.Join(d, ".build-id", head, tail+".debug"), filepath.Join(d, head, tail+".debug"),
			filepath.Join(d, id, "debuginfo"), filepath.Join(d, path+".debug"), filepath.Join(d, path),
			filepath.Join(d, filepath.Base(path)+".debug"), filepath.Join(d, filepath.Base(path)))
	}
	var why error
	for _, p := range append(paths, path) {
		b, err := symbolize.Checked(p, id, dirs...)
		if err == nil {
			return b, nil
		}
		if !errors.Is(err, fs.ErrNotExist) && why == nil {
			why = err
		}
	}
	return nil, why
}
