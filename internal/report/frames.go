package report

import (
	"fmt"
	"slices"
	"strings"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/stack"
)

// What one stack may take on the screen. A longer one loses its middle, never
// the leaf, which is the evidence, nor the root, which says what runs.
const (
	maxLines  = 60
	keepLeaf  = 35
	keepRoot  = 15
	minRepeat = 3  // rounds from which on a cycle is folded
	maxPeriod = 16 // frames of the longest cycle that is recognised
	maxValue  = 40 // runes of one argument's value
)

func runsPHP(s *Stack) bool {
	return slices.ContainsFunc(s.Frames, func(f stack.Frame) bool { return f.Kind == stack.PHP })
}

func (t *textWriter) stacks() {
	if snapshot(&t.r.Observation) {
		// Of a threaded server's many threads those that run PHP matter.
		for _, php := range []bool{true, false} {
			for i := range t.r.Stacks {
				if s := &t.r.Stacks[i]; runsPHP(s) == php {
					t.end()
					t.line(bold, threads(s.TIDs)+t.requestOf(s)+":")
					t.stack(s)
				}
			}
		}
		return
	}
	var shown *shape
	rest := map[capture.EventKind]int{}
	for _, kind := range []capture.EventKind{capture.Stop, capture.Sample} {
		shapes, total := shapesOf(t.r.Stacks, kind)
		if len(shapes) == 0 {
			continue
		}
		top := &shapes[0]
		t.end()
		t.line(bold, heading(top, len(shapes), total, kind, shown))
		if shown == nil || shown.key != top.key {
			t.stack(top.first)
		}
		shown = top
		rest[kind] = len(shapes) - 1
	}
	t.others(rest)
}

// shape is the stacks that took the same functions, at whatever line or address.
type shape struct {
	key    string
	first  *Stack // the most frequent of them
	count  int    // events
	stacks int    // distinct stacks
}

// shapesOf gathers the stacks of one kind, most frequent first, and counts
// their events. Samples of one busy loop are all at another instruction; told
// apart they would bury what they have in common.
func shapesOf(ss []Stack, kind capture.EventKind) (shapes []shape, total int) {
	index := map[string]int{}
	for i := range ss {
		s := &ss[i]
		if s.Kind != kind {
			continue
		}
		total += s.Count
		key := shapeKey(s.Frames)
		at, ok := index[key]
		if !ok {
			at = len(shapes)
			index[key] = at
			shapes = append(shapes, shape{key: key, first: s})
		}
		shapes[at].count += s.Count
		shapes[at].stacks++
	}
	// The first is what matters; the order of the others is not shown.
	for i := range shapes {
		if shapes[i].count > shapes[0].count {
			shapes[0], shapes[i] = shapes[i], shapes[0]
		}
	}
	return shapes, total
}

func shapeKey(fs []stack.Frame) string {
	var b strings.Builder
	for i := range fs {
		f := &fs[i]
		for _, s := range []string{string(f.Kind), f.Class, f.Function} {
			b.WriteString(s)
			b.WriteByte(0)
		}
		if f.Unresolved() {
			b.WriteString(f.Module)
		}
		b.WriteByte(1)
	}
	return b.String()
}

// heading is "150 of 200 stops, the most frequent of 3 stacks:".
func heading(s *shape, shapes, total int, kind capture.EventKind, shown *shape) string {
	h := fmt.Sprintf("%s of %s", number(s.count), count(total, string(kind)))
	if shapes == 1 {
		h += ", one stack"
	} else {
		h += fmt.Sprintf(", the most frequent of %s stacks", number(shapes))
	}
	if s.stacks > 1 {
		h += fmt.Sprintf(", in %s variants of line or address", number(s.stacks))
	}
	if shown != nil && shown.key == s.key {
		return h + ": the same as above"
	}
	return h + ":"
}

func (t *textWriter) others(rest map[capture.EventKind]int) {
	var parts []string
	for _, kind := range []capture.EventKind{capture.Stop, capture.Sample} {
		if n := rest[kind]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s of %ss", count(n, "further stack"), kind))
		}
	}
	if len(parts) > 0 {
		t.end()
		t.prose("", dim, strings.Join(parts, " and ")+"; --format json has every one")
	}
}

// threads names the first few threads of a stack.
func threads(tids []int) string {
	const few = 4
	switch n := len(tids); {
	case n == 0:
		return "thread"
	case n == 1:
		return fmt.Sprintf("thread %d", tids[0])
	case n <= few:
		return "threads " + join(tids) + ", one stack"
	default:
		return fmt.Sprintf("threads %s and %s more, one stack", join(tids[:few]), number(n-few))
	}
}

func join(ns []int) string {
	s := make([]string, len(ns))
	for i, n := range ns {
		s[i] = fmt.Sprint(n)
	}
	return strings.Join(s, ", ")
}

// row is one line of a stack: a frame, or the word that the cycle rows above
// it come again and again.
type row struct {
	frame  *stack.Frame
	number int // of native frames, counted from the leaf as gdb does
	repeat int // how often in all; 1 for most
	cycle  int // frames of the cycle that ends here, when frame is nil
}

func (t *textWriter) stack(s *Stack) {
	rows := rowsOf(s.Frames)
	if len(rows) <= maxLines {
		t.rows(rows)
	} else {
		t.rows(rows[:keepLeaf])
		t.line(dim, elided(rows[keepLeaf:len(rows)-keepRoot]))
		t.rows(rows[len(rows)-keepRoot:])
	}
	switch {
	case s.End == stack.Truncated && s.Error != "":
		t.prose("    ", yellow, "the stack is cut off here: "+s.Error)
	case s.End == stack.Truncated:
		t.prose("    ", yellow, "the stack is cut off here")
	case s.Error != "":
		t.prose("    ", yellow, "incomplete: "+s.Error)
	}
}

// rowsOf numbers the native frames and folds cycles, which is what recursion
// looks like: a function that calls itself, two that call each other, or a
// callback with the interpreter's frames between.
func rowsOf(fs []stack.Frame) []row {
	var rows []row
	native := 0
	add := func(f *stack.Frame, repeat int) {
		rows = append(rows, row{frame: f, number: native, repeat: repeat})
		if f.Kind == stack.Native {
			native++
		}
	}
	for i := 0; i < len(fs); {
		period, times := cycleAt(fs[i:])
		if period == 1 {
			add(&fs[i], times)
		} else {
			for j := range period {
				add(&fs[i+j], 1)
			}
		}
		if times > 1 {
			if period > 1 {
				rows = append(rows, row{repeat: times, cycle: period})
			}
			// The numbers of what was folded are left out, not given anew.
			for _, f := range fs[i : i+period] {
				if f.Kind == stack.Native {
					native += times - 1
				}
			}
		}
		i += period * times
	}
	return rows
}

// cycleAt finds the shortest cycle that fs begins with; 1, 1 when there is none.
func cycleAt(fs []stack.Frame) (period, times int) {
	for p := 1; p <= maxPeriod && p*minRepeat <= len(fs); p++ {
		same := 0 // frames after the first p that continue the cycle
		for p+same < len(fs) && samePlace(&fs[same], &fs[p+same]) {
			same++
		}
		if n := 1 + same/p; n >= minRepeat {
			return p, n
		}
	}
	return 1, 1
}

func samePlace(a, b *stack.Frame) bool {
	return a.Kind == b.Kind && a.Function == b.Function && a.Class == b.Class && a.File == b.File && a.Line == b.Line &&
		a.PC == b.PC && a.Module == b.Module && a.Inlined == b.Inlined
}

// elided says what the middle of a deep stack consists of.
func elided(rows []row) string {
	total, seen := 0, map[string]int{}
	for _, r := range rows {
		if r.frame == nil {
			total += r.cycle * (r.repeat - 1)
			continue
		}
		total += r.repeat
		if r.frame.Kind == stack.PHP {
			seen[call(r.frame.Class, r.frame.Function)] += r.repeat
		}
	}
	most := ""
	for name, n := range seen {
		if n > seen[most] || n == seen[most] && name < most {
			most = name
		}
	}
	s := fmt.Sprintf("    … %s frames …", number(total))
	if n := seen[most]; n >= minRepeat {
		s += fmt.Sprintf(" (%s %s times)", most, number(n))
	}
	return s
}

func (t *textWriter) rows(rows []row) {
	for i := range rows {
		switch r := &rows[i]; {
		case r.frame == nil:
			t.line(bold, fmt.Sprintf("    … the last %d frames ×%s", r.cycle, number(r.repeat)))
		case r.frame.Kind == stack.PHP:
			t.phpRow(r)
		default:
			t.nativeRow(r)
		}
	}
}

func (t *textWriter) phpRow(r *row) {
	f := r.frame
	t.put(dim, "    PHP  ")
	t.put(cyan, call(f.Class, f.Function)+at(f.File, f.Line))
	if f.Internal {
		t.put(dim, " (internal)")
	}
	if f.Defined != 0 {
		t.put(dim, fmt.Sprintf(" (defined on line %d)", f.Defined))
	}
	if f.Opcode != "" {
		t.put(dim, " ["+f.Opcode+"]")
	}
	t.times(r)
	if r.repeat > 1 && len(f.Values) > 0 {
		t.line(dim, valueIndent+"of the innermost:")
	}
	t.values(f.Values)
}

// times ends a row, with how often its frame came in a row.
func (t *textWriter) times(r *row) {
	if r.repeat > 1 {
		t.put(bold, " ×"+number(r.repeat))
	}
	t.end()
}

// nativeRow writes a frame the way gdb does.
func (t *textWriter) nativeRow(r *row) {
	f := r.frame
	t.put(plain, fmt.Sprintf("%-3s ", fmt.Sprintf("#%d", r.number)))
	if !f.Inlined && f.PC != 0 { // pasted stacks have none
		t.put(dim, fmt.Sprintf("0x%016x", uint64(f.PC)))
		t.put(plain, " in ")
	}
	switch {
	case f.Unresolved() && f.PC == 0:
		t.put(plain, "??")
		if f.Module != "" {
			t.put(plain, " from "+f.Module)
		}
	case f.Unresolved() && f.Module == "":
		t.put(plain, "?? (in no file)"+how(f))
	case f.Unresolved():
		t.put(plain, fmt.Sprintf("?? from %s+0x%x%s", f.Module, f.Offset, how(f)))
	default:
		t.put(bold, f.Function)
		t.put(plain, arguments(f)+how(f))
		if f.File != "" {
			t.put(plain, at(f.File, f.Line))
		} else if f.Module != "" {
			t.put(plain, " from "+f.Module)
		}
	}
	t.times(r)
}

// how marks the frames that unwinding did not find by the common way.
func how(f *stack.Frame) string {
	switch f.How {
	case "tail-call":
		return " (tail call)"
	case "frame-pointer":
		return " (by frame pointer)"
	case "scan":
		return " (found on the stack)"
	case "inline":
		return " (inlined)"
	}
	if f.Inlined {
		return " (inlined)"
	}
	return ""
}

func arguments(f *stack.Frame) string {
	if f.Inlined && len(f.Args) == 0 {
		return ""
	}
	args := make([]string, len(f.Args))
	for i, a := range f.Args {
		args[i] = a.Name + "=" + shorten(visible(a.Value), maxValue)
	}
	return " (" + strings.Join(args, ", ") + ")"
}

// shorten keeps the first n runes.
func shorten(s string, n int) string {
	for i := range s {
		if n == 0 {
			return s[:i] + "…"
		}
		n--
	}
	return s
}
