package observe

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/target"
	"github.com/phpwhy/phpwhy/internal/zend"
)

// Look says which values of PHP variables are read; the zero value reads none.
type Look struct {
	Values bool  // those of every frame
	Vars   []Var // single ones, over time
}

// Var names a variable at a place.
type Var struct {
	Name string // without $
	File string // the end of its path, whole components only
	Line int    // 0 for any line
}

// variableName is what the PHP manual says of names; bytes beyond ASCII are
// letters.
var variableName = regexp.MustCompile(`^\$?([a-zA-Z_\x{80}-\x{10ffff}][a-zA-Z0-9_\x{80}-\x{10ffff}]*)$`)

// ParseVar reads NAME@FILE, NAME@FILE:LINE or NAME@FILE:*.
func ParseVar(s string) (Var, error) {
	name, place, ok := strings.Cut(s, "@")
	m := variableName.FindStringSubmatch(name)
	if !ok || m == nil {
		return Var{}, fmt.Errorf("%q is not NAME@FILE:LINE", s)
	}
	v := Var{Name: m[1], File: place}
	if i := strings.LastIndexByte(place, ':'); i >= 0 {
		v.File = place[:i]
		if line := place[i+1:]; line != "*" {
			n, err := strconv.Atoi(line)
			if err != nil || n < 1 || n > 1<<28 {
				return Var{}, fmt.Errorf("%q: a line is a number from 1 on, or *", s)
			}
			v.Line = n
		}
	}
	v.File = strings.TrimPrefix(v.File, "./")
	if v.File == "" || strings.HasSuffix(v.File, "/") {
		return Var{}, fmt.Errorf("%q names no file", s)
	}
	return v, nil
}

// At is the variable's place as a person writes it.
func (v Var) At() string {
	if v.Line == 0 {
		return v.File
	}
	return fmt.Sprintf("%s:%d", v.File, v.Line)
}

func (v Var) inFile(path string) bool {
	rest, ok := strings.CutSuffix(path, v.File)
	return ok && (rest == "" || v.File[0] != '/' && rest[len(rest)-1] == '/')
}

// looker reads the values that were asked for. After the observation has
// begun only one goroutine uses it, except for want.
type looker struct {
	want    zend.Want
	any     bool
	values  bool
	watched []*watched
	err     error // why values can't be read
}

func newLooker(l Look) *looker {
	k := &looker{any: l.Values || len(l.Vars) > 0, values: l.Values}
	for _, v := range l.Vars {
		k.watched = append(k.watched, &watched{Var: v, distinct: make(map[string]bool)})
	}
	k.want = zend.Want{All: l.Values, Of: func(f *zend.Frame) (names []string) {
		for _, v := range l.Vars {
			if v.inFile(f.File) {
				names = append(names, v.Name)
			}
		}
		return names
	}}
	return k
}

// read reads the values of a stack's frames, nil when none are wanted.
func (k *looker) read(th *zend.Thread, snap *target.Snapshot, frames []zend.Frame) [][]zend.Value {
	if !k.any {
		return nil
	}
	vs, err := th.Values(snap, frames, k.want)
	if err != nil {
		k.err = err
		return nil
	}
	return vs
}

// shown are the values of frame i that the report shows; nil for none, when
// only single variables were asked for.
func (k *looker) shown(vs [][]zend.Value, i int) []stack.Value {
	if !k.values || vs == nil {
		return nil
	}
	out := make([]stack.Value, len(vs[i]))
	for j, v := range vs[i] {
		out[j] = stack.Value{Name: v.Name, Kind: string(v.Kind), Type: v.Type, Value: v.Text, Redacted: v.Redacted}
	}
	return out
}

// see notes the watched variables of a joined stack. Joining keeps the order
// of PHP's frames, and knows their exact lines.
func (k *looker) see(st *stack.Stack, vs [][]zend.Value) {
	if vs == nil {
		return
	}
	for _, w := range k.watched {
		n := 0
		for i := range st.Frames {
			f := &st.Frames[i]
			if f.Kind != stack.PHP {
				continue
			}
			if n++; n > len(vs) {
				break
			}
			if w.inFile(f.File) && (w.Line == 0 || w.Line == f.Line) && w.see(vs[n-1]) {
				break // the innermost one
			}
		}
	}
}

// into completes a capture.
func (k *looker) into(c *capture.Capture) {
	for _, w := range k.watched {
		c.Variables = append(c.Variables, w.summary())
	}
	if k.err != nil {
		c.Observation.Notes = append(c.Observation.Notes, fmt.Sprintf("values of variables can't be read: %v", k.err))
	}
}

// maxDistinct bounds how many values of one variable are told apart.
const maxDistinct = 1 << 16

// watched is a variable over time.
type watched struct {
	Var
	seen, shown             int // times; and those at which it was not redacted
	first, last             zend.Value
	distinct                map[string]bool
	grew, shrank, unordered bool
}

// see notes the variable's value in a frame, and reports whether it is there.
func (w *watched) see(vs []zend.Value) bool {
	for i := range vs {
		v := &vs[i]
		if strings.TrimPrefix(v.Name, "$") != w.Name {
			continue
		}
		if w.seen == 0 {
			w.first = *v
		} else if order, ok := w.last.Compare(v); !ok {
			w.unordered = true
		} else {
			w.grew, w.shrank = w.grew || order < 0, w.shrank || order > 0
		}
		w.last = *v
		w.seen++
		if !v.Redacted {
			w.shown++
			if len(w.distinct) < maxDistinct {
				w.distinct[v.Type+" "+v.Text] = true
			}
		}
		return true
	}
	return false
}

func (w *watched) summary() capture.Variable {
	return capture.Variable{Var: w.Name, At: w.At(), Seen: w.seen, First: w.first.Text, Last: w.last.Text,
		Distinct: len(w.distinct), Trend: w.trend()}
}

func (w *watched) trend() string {
	switch {
	case w.seen < 2 || w.shown == 0:
		return "" // nothing to compare
	case w.grew && !w.shrank && !w.unordered:
		return "grows"
	case w.shrank && !w.grew && !w.unordered:
		return "shrinks"
	case len(w.distinct) == 1 && w.shown == w.seen && !w.grew && !w.shrank:
		return "constant"
	}
	return "varies"
}
