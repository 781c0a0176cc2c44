package rules

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// sketch is one alternative: the frames of a stack up to cut.
type sketch struct {
	frames []Frame // native
	cut    int
	lines  []string
}

// generic are the functions below which every PHP process looks the same.
var generic = lazily(`^(execute_ex|zend_execute.*|zend_call_.*|xdebug_execute_.*|php_execute_.*|php_cli_startup|do_cli|main|_start|__libc_start.*|ZEND_.*_HANDLER|zend_do_fcall.*|dtrace_execute.*)$`)

// nameable are names that a frame line can hold.
var nameable = lazily(`^[A-Za-z_.$@][\w.$@:]*$`)

// keywords are words that frame lines read as something else than a name.
var keywords = []string{"leaf", "root", "opt", "gap", "any"}

// alternatives sketches patterns until they cover most events.
func (w *drafter) alternatives() {
	seen := &seenNode{in: w.in}
	weights := w.x.weights(seen)
	total, covered := 0, 0
	for _, s := range weights {
		total += s.n
	}
	for _, s := range weights {
		sight := w.x.sight(s.stack)
		if slices.ContainsFunc(w.native, func(k sketch) bool { return k.fits(sight) }) {
			covered += s.n
			continue
		}
		if len(w.native) == maxDraftAlternatives || float64(covered) >= 0.8*float64(total) {
			continue
		}
		if k := sketchOf(sight); k.lines != nil {
			w.native = append(w.native, k)
			covered += s.n
		}
	}
	w.php = w.phpLines(weights)
}

func sketchOf(s *sight) sketch {
	k := sketch{}
	for _, i := range s.views[Native] {
		k.frames = append(k.frames, s.Frames[i])
	}
	for k.cut < len(k.frames) && !generic().MatchString(k.frames[k.cut].Name) {
		k.cut++
	}
	k.lines = linesOf(k.frames, k.cut)
	if named(k.lines) < 2 && (k.cut > 0 || k.lines == nil) {
		// One name can be anywhere: say how near to the interpreter it is.
		// And when nothing has a name, the interpreter itself is at work.
		if lines := linesOf(k.frames, min(k.cut+1, len(k.frames))); lines != nil {
			k.cut, k.lines = min(k.cut+1, len(k.frames)), lines
		}
	}
	return k
}

// named counts the lines that a frame must match.
func named(lines []string) int {
	n := 0
	for _, l := range lines {
		if !strings.HasPrefix(l, "gap ") && !strings.HasPrefix(l, "opt ") {
			n++
		}
	}
	return n
}

func (k *sketch) fits(s *sight) bool {
	p, bad := parsePattern(strings.Join(k.lines, "\n"), false)
	if len(bad) > 0 {
		return false
	}
	_, ok := compile(p).run(s.Frames, s.views[Native])
	return ok
}

// linesOf writes frames as frame lines; nil when none of them has a name that
// is there in every build.
func linesOf(frames []Frame, cut int) []string {
	var lines []string
	last, unknown := 0, 0
	flush := func() {
		if unknown > 0 {
			lines = append(lines, fmt.Sprintf("gap 0-%d", unknown+slack))
		}
		unknown = 0
	}
	for i := 0; i < cut && len(lines) < maxDraftLines; i++ {
		f := &frames[i]
		if !nameable().MatchString(f.Name) || slices.Contains(keywords, f.Name) {
			unknown++
			continue
		}
		flush()
		switch {
		case f.Inlined:
			lines = append(lines, "opt "+f.Name)
		// A handler of an internal function has a name in captures of phpwhy,
		// which finds it by the function.
		case Exported(f.Name), strings.HasPrefix(f.Name, "zif_"):
			lines = append(lines, f.Name)
			last = len(lines)
		default:
			// Stripped binaries have no name for it.
			lines = append(lines, f.Name+" unk")
			if last == 0 && i == cut-1 {
				lines[len(lines)-1] = f.Name
				last = len(lines)
			}
		}
	}
	if last == 0 {
		return nil
	}
	lines = lines[:last]
	lines[0] = "leaf " + lines[0]
	return lines
}

// phpLines captures the place, and the internal function that PHP code called
// when most stacks agree on it.
func (w *drafter) phpLines(weights []weight) string {
	internals := make(map[string]int)
	total, users := 0, 0
	for _, s := range weights {
		sight := w.x.sight(s.stack)
		total += s.n
		for at, i := range sight.views[PHP] {
			f := &sight.Frames[i]
			if at == 0 && f.Internal && f.Class == "" && nameable().MatchString(f.Name) {
				internals[f.Name] += s.n
			}
			if !f.Internal {
				users += s.n
				break
			}
		}
	}
	if users == 0 || float64(users) < 0.8*float64(total) {
		return ""
	}
	for _, n := range slices.Sorted(maps.Keys(internals)) {
		if float64(internals[n]) >= 0.8*float64(total) {
			return "leaf internal " + n + "\n0-* internal\nuser as=site"
		}
	}
	return "user as=site"
}
