package rules

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/phpwhy/phpwhy/symbolize/symname"
)

const (
	// maxText bounds pasted text in bytes, maxPasted its frames.
	maxText   = 64 << 20
	maxPasted = 1 << 20
)

// ErrNoBacktrace is returned for text in which no stack was recognised.
var ErrNoBacktrace = errors.New("no backtrace in this text")

// ErrNoStacks is returned for what strace prints without -k.
var ErrNoStacks = fmt.Errorf("%w: system calls without stacks", ErrNoBacktrace)

// ErrTooLarge is returned for text beyond the limits of ParseBacktrace.
var ErrTooLarge = errors.New("the text is too large")

// ParseBacktrace reads stacks from what gdb (bt), eu-stack or strace -k print;
// other lines are passed over. A stack becomes a stop when it shows mmap or
// mremap with arguments (gdb's #0, strace's call), and a sample otherwise.
//
// Such text holds no PHP frames and no facts, so that most rules are
// undetermined on it. strace names a frame of a stripped binary by the
// nearest symbol below, which is often another function.
func ParseBacktrace(text string) (*Observation, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, maxText)
	}
	p := parser{o: &Observation{}, index: make(map[string]int)}
	for line := range strings.Lines(decodeBOM(text)) {
		p.line(plainLine(line))
		if p.total > maxPasted {
			return nil, fmt.Errorf("%w: more than %d frames", ErrTooLarge, maxPasted)
		}
	}
	p.finish()
	if len(p.o.Events) == 0 {
		if p.calls > 0 {
			return nil, ErrNoStacks
		}
		return nil, ErrNoBacktrace
	}
	return p.o, nil
}

var (
	// #1  0x00005653bb3fc545 in zend_mm_chunk_extend (heap=0x7f…) at /usr/…/zend_alloc.c:827
	numbered = lazily(`^\s*#(\d+)\s+(?:(0x[0-9a-f]+)(?: in\b| - 1\b)?)?\s*(.*)$`)
	// mremap(0x7f8936600000, 25288704, 25292800, 0) = 0x7f8936600000
	call = lazily(`^\s*(?:\[pid +\d+\] |\d+ +)?(?:[\d:.]+ )?([a-z_0-9]+)\((.*)\) += `)
	// > /usr/bin/php8.2(concat_function+0x20c) [0x2faf2c]
	straceFrame = lazily(`^\s+> (.*?)\((?:([^()+]+)(?:\(.*\))?\+0x[0-9a-f]+)?\) \[0x[0-9a-f]+\]$`)
	// addr=addr@entry=0x7fda7d200000
	argument = lazily(`(\w+)=(?:\w+@entry=)?(0x[0-9a-f]+|-?\d+)`)
)

// parser collects stacks from lines.
type parser struct {
	o      *Observation
	index  map[string]int // of stacks, by their text
	frames []Frame
	stop   *Event // the call that the frames are of
	total  int
	strace bool     // the frames are strace's, whose end has no mark
	calls  int      // system calls that strace has printed
	broken bool     // the stack goes on beyond the frames
	gdb    *gdbLine // the last frame, where gdb has printed it
}

// brokenOff begins the lines by which gdb says that a stack goes on.
var brokenOff = []string{"(More stack frames follow", "Backtrace stopped:"}

// unquotedLine is a line without the > of a mail or chat that quotes it. Frames of strace
// have one of their own, behind a blank.
func unquotedLine(s string) string {
	for strings.HasPrefix(s, ">") {
		if s = s[1:]; straceFrame().MatchString(s) {
			break
		}
		s = strings.TrimPrefix(s, " ")
	}
	return s
}

func (p *parser) line(s string) {
	s = unquotedLine(s)
	if m := straceFrame().FindStringSubmatch(s); m != nil {
		p.strace, p.o.Nearby = true, true
		p.add(Frame{Raw: m[2], Name: symname.Canonical(m[2]), Module: path.Base(m[1])})
		return
	}
	if p.strace {
		p.finish()
	}
	if m := numbered().FindStringSubmatch(s); m != nil {
		p.numbered(m[1], m[2] != "", m[3])
		return
	}
	if m := call().FindStringSubmatch(s); m != nil {
		p.finish()
		p.stop = straceCall(m[1], m[2])
		p.calls++
		return
	}
	if slices.ContainsFunc(brokenOff, func(b string) bool { return strings.HasPrefix(strings.TrimSpace(s), b) }) {
		p.broken = len(p.frames) > 0
		return
	}
	t := strings.TrimSpace(s)
	switch {
	case t == s || len(p.frames) == 0:
	case p.gdb != nil:
		p.folded(t)
	default: // eu-stack -s puts the place on a line of its own
		p.frames[len(p.frames)-1].place(t)
	}
}

// gdbLine is a frame as gdb prints it, behind its number and address.
type gdbLine struct {
	leaf  bool
	text  string
	lines int
}

// maxFolds and maxFolded bound the lines and bytes that one frame is folded into, by its
// arguments mostly, of which gdb shows 200 characters each.
const (
	maxFolds  = 200
	maxFolded = 64 << 10
)

// folded reads a further line of a frame that gdb has folded at the terminal's width,
// between its arguments or behind them. Other lines below a frame are its variables (bt full).
func (p *parser) folded(t string) {
	l := p.gdb
	if l.lines == maxFolds || len(l.text)+len(t) > maxFolded {
		return
	}
	inside := strings.Count(l.text, "(") > strings.Count(l.text, ")")
	placed := strings.Contains(l.text, ") at ") || strings.Contains(l.text, ") from ")
	place := strings.HasPrefix(t, "at ") || strings.HasPrefix(t, "from ")
	if !inside && (placed || !place) {
		return
	}
	l.text += " " + t
	l.lines++
	p.frames[len(p.frames)-1] = p.gdbFrame()
}

// gdbFrame reads what there is of gdb's frame: name (arguments) at file:line, or from module.
func (p *parser) gdbFrame() Frame {
	name, tail, _ := strings.Cut(p.gdb.text, " (")
	f := frameNamed(name)
	if i := strings.LastIndex(tail, ") at "); i >= 0 {
		f.place(tail[i+len(") at "):])
	} else if i := strings.LastIndex(tail, ") from "); i >= 0 {
		f.Module = path.Base(tail[i+len(") from "):])
	}
	if p.gdb.leaf {
		p.stop = gdbCall(f.Name, tail)
	}
	return f
}

// frameNamed is a frame of that name, which may be ?? for none.
func frameNamed(raw string) Frame {
	if raw == "??" {
		raw = ""
	}
	return Frame{Raw: raw, Name: symname.Canonical(raw)}
}

// numbered reads a frame of gdb or eu-stack behind its number and address.
func (p *parser) numbered(n string, addr bool, rest string) {
	if n == "0" {
		p.finish()
	}
	p.gdb = nil
	if !strings.Contains(rest, " (") {
		name, module := euModule(rest)
		f := frameNamed(name)
		f.Module = module
		p.add(f)
		return
	}
	if !addr && n != "0" && len(p.frames) > 0 {
		// gdb leaves out the address of a frame that has another inlined into it.
		p.frames[len(p.frames)-1].Inlined = true
	}
	p.gdb = &gdbLine{leaf: n == "0", text: rest}
	p.add(p.gdbFrame())
}

// euModule splits what eu-stack -m writes, "concat_function - /usr/bin/php8.2", of
// which the name may be missing.
func euModule(s string) (name, module string) {
	name, file := s, ""
	if rest, ok := strings.CutPrefix(s, "- "); ok {
		name, file = "", rest
	} else if i := strings.LastIndex(s, " - "); i >= 0 {
		name, file = s[:i], s[i+len(" - "):]
	}
	switch {
	case strings.HasPrefix(file, "[vdso"):
		return name, "[vdso]"
	case strings.HasPrefix(file, "/"), strings.HasPrefix(file, "["):
		return name, path.Base(file)
	}
	return s, ""
}

// place reads file:line or file:line:column.
func (f *Frame) place(s string) {
	parts := strings.Split(s, ":")
	for i := 1; i < len(parts); i++ {
		if n, err := strconv.Atoi(parts[i]); err == nil && n > 0 {
			f.File, f.Line = strings.Join(parts[:i], ":"), n
			return
		}
	}
}

func (p *parser) add(f Frame) {
	p.frames = append(p.frames, f)
	p.total++
}

// finish makes an event of the frames so far.
func (p *parser) finish() {
	frames, stop, broken := p.frames, p.stop, p.broken
	p.frames, p.stop, p.strace, p.broken, p.gdb = nil, nil, false, false, nil
	if len(frames) == 0 {
		return
	}
	ev := Event{Kind: Sample}
	if stop != nil {
		ev = *stop
		if !watches(p.o, ev.Symbol) {
			p.o.Watched = append(p.o.Watched, ev.Symbol)
		}
	}
	key := fmt.Sprint(broken, frames)
	at, known := p.index[key]
	if !known {
		at = len(p.o.Stacks)
		p.index[key] = at
		p.o.Stacks = append(p.o.Stacks, Stack{Frames: frames, Truncated: broken})
	}
	ev.Stack = at
	p.o.Events = append(p.o.Events, ev)
}

// gdbCall reads the arguments of frame #0: nil when it is not a call that
// rules know, or when an argument is not shown.
func gdbCall(name, args string) *Event {
	want := map[string][]string{"mremap": {"addr", "old_len", "new_len", "flags"}, "mmap": {"addr", "len", "prot", "flags"}}[name]
	found := make(map[string]string)
	for _, m := range argument().FindAllStringSubmatch(args, -1) {
		found[m[1]] = m[2]
	}
	var vals []uint64
	for _, w := range want {
		v, err := strconv.ParseUint(found[w], 0, 64)
		if err != nil {
			return nil
		}
		vals = append(vals, v)
	}
	if len(vals) == 0 {
		return nil
	}
	return &Event{Kind: Stop, Symbol: name, Args: vals}
}

// straceCall reads a system call as strace writes it.
func straceCall(name, args string) *Event {
	if name != "mmap" && name != "mremap" {
		return nil
	}
	var vals []uint64
	for i, a := range strings.Split(args, ", ") {
		v, err := strconv.ParseUint(a, 0, 64)
		switch {
		case a == "NULL":
			v = 0
		case name == "mmap" && i == 3 && strings.Contains(a, "MAP_FIXED"):
			v = mapFixed
		case name == "mremap" && i == 3 && strings.Contains(a, "MREMAP_MAYMOVE"):
			v = mremapMayMove
		case err != nil && i >= 2:
			v = 0 // named flags, of which none else matters
		case err != nil:
			return nil
		}
		vals = append(vals, v)
	}
	if len(vals) < 4 {
		return nil
	}
	return &Event{Kind: Stop, Symbol: name, Args: vals}
}
