package rules

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/phpwhy/phpwhy/symbolize/symname"
)

const (
	// maxRepeat bounds M and N of a frame line; maxElements the frame lines
	// of one alternative; maxStates what they expand to.
	maxRepeat   = 256
	maxElements = 64
	maxStates   = 2048
	unbounded   = -1
)

// element is one frame line: a test and how many adjacent frames it takes.
type element struct {
	min, max   int // max unbounded: any number
	leaf, root bool
	unk        bool     // an unresolved frame outside libc may stand in
	names      []string // canonical; of PHP in lower case, and with globs among them
	globs      []string // native names with * or ?
	module     string
	file       string
	lineMin    int
	lineMax    int // 0: no test
	inlined    string
	as         string
	any        bool // a gap: every frame

	// PHP lines.
	php      bool
	internal bool
	user     bool

	// Where the line stands, for people.
	no    int        // in its pattern's text, from 1
	text  string     // as it is written
	at    mark       // in the rule's file
	words []spelling // the names and globs, as they are written
}

// spelling is a name or glob of a frame line.
type spelling struct {
	text string
	off  int // in the line's text
}

// pattern is one alternative, leaf first.
type pattern struct {
	elements []element
	php      bool
}

// parsePattern reads frame lines, one per line. It returns the problems by
// line (from 0).
func parsePattern(text string, php bool) (*pattern, map[int]error) {
	p := &pattern{php: php}
	bad := make(map[int]error)
	states := 0
	lines := strings.Split(text, "\n")
	last := -1
	for i, line := range lines {
		line = strings.TrimSpace(line)
		if m := numbered().FindStringSubmatch(line); m != nil {
			bad[i] = errPasted(m[3])
			continue
		}
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		e, err := parseLine(line, php)
		if err != nil {
			bad[i] = err
			continue
		}
		e.no, e.text = i+1, line
		if e.leaf && len(p.elements) > 0 {
			bad[i] = errors.New("leaf can only stand on the first line")
		}
		if last >= 0 && p.elements[len(p.elements)-1].root {
			bad[last] = errors.New("root can only stand on the last line")
		}
		states += max(e.min, e.max) + 1
		p.elements = append(p.elements, e)
		last = i
		if len(p.elements) > maxElements || states > maxStates {
			bad[i] = fmt.Errorf("more than %d lines or %d frames", maxElements, maxStates)
			break
		}
	}
	if len(p.elements) == 0 && len(bad) == 0 {
		bad[0] = errors.New("no frame lines")
	}
	if len(bad) == 0 && !p.anchored() {
		bad[0] = errors.New("no line that a frame must match; the pattern would match everything")
	}
	return p, bad
}

// errPasted is what to do with a line of a backtrace, which begins like a comment.
func errPasted(rest string) error {
	name, _, _ := strings.Cut(rest, " (")
	if name, _ = euModule(name); nameable().MatchString(name) {
		return fmt.Errorf("of a line of a backtrace keep the name alone: %s", symname.Canonical(name))
	}
	return errors.New("of a line of a backtrace keep the name alone; frames without a name are gap M-N")
}

// anchored reports whether some frame must be there and be something.
func (p *pattern) anchored() bool {
	for i := range p.elements {
		if e := &p.elements[i]; e.min > 0 && (!e.any || e.module != "" || e.file != "") {
			return true
		}
	}
	return false
}

// leaves are the names that the innermost frame of a match can have; nil when it
// can have any.
func (p *pattern) leaves() []string {
	if !p.elements[0].leaf {
		return nil
	}
	var out []string
	for i := range p.elements {
		e := &p.elements[i]
		if e.any || len(e.globs) > 0 || len(e.names) == 0 {
			return nil
		}
		out = append(out, e.names...)
		if e.min > 0 {
			break
		}
	}
	return out
}

func parseLine(line string, php bool) (element, error) {
	e := element{min: 1, max: 1, php: php, text: line}
	words := strings.Fields(line)
	i := 0
	next := func() string {
		if i < len(words) {
			return words[i]
		}
		return ""
	}
	if w := next(); w == "leaf" || w == "root" {
		e.leaf, e.root = w == "leaf", w == "root"
		i++
	}
	if w := next(); w == "opt" {
		e.min = 0
		i++
	} else if lo, hi, ok := repeat(w); ok {
		e.min, e.max = lo, hi
		i++
		if err := checkRepeat(lo, hi); err != nil {
			return e, err
		}
	}
	switch w := next(); {
	case w == "gap":
		return parseGap(e, words[i+1:])
	case w == "":
		return e, errors.New("a name is missing")
	case w == "any" && !php:
		e.any = true
		i++
	case php && (w == "internal" || w == "user"):
		e.internal, e.user = w == "internal", w == "user"
		i++
		if n := next(); n != "" && !strings.Contains(n, "=") {
			if err := e.setPHPNames(n); err != nil {
				return e, err
			}
			i++
		}
	case strings.Contains(w, "="):
		if !php {
			return e, fmt.Errorf("a name is missing before %s", w)
		}
	case php:
		if err := e.setPHPNames(w); err != nil {
			return e, err
		}
		i++
	default:
		if err := e.setNames(w); err != nil {
			return e, err
		}
		i++
	}
	e, err := e.withAttributes(words[i:])
	if err != nil && i < len(words) {
		err = fmt.Errorf("%w%s", err, misspelt(words[0], php))
	}
	return e, err
}

// misspelt is said where a word does not fit in behind what was taken for the name,
// and is perhaps the name itself.
func misspelt(first string, php bool) string {
	known := []string{"leaf", "root", "opt", "gap", "any"}
	if php {
		known = []string{"leaf", "root", "opt", "gap", "user", "internal"}
	}
	if slices.Contains(known, first) {
		return ""
	}
	return didYouMeanFold(first, known)
}

func parseGap(e element, rest []string) (element, error) {
	e.any = true
	if len(rest) != 1 {
		return e, errors.New("gap takes M-N, for example gap 0-5")
	}
	lo, hi, ok := repeat(rest[0])
	if !ok {
		return e, fmt.Errorf("gap takes M-N, not %q", rest[0])
	}
	e.min, e.max = lo, hi
	return e, checkRepeat(lo, hi)
}

// repeat reads M-N or M-*.
func repeat(w string) (lo, hi int, ok bool) {
	a, b, found := strings.Cut(w, "-")
	lo, err := strconv.Atoi(a)
	if !found || err != nil {
		return 0, 0, false
	}
	if b == "*" {
		return lo, unbounded, true
	}
	hi, err = strconv.Atoi(b)
	return lo, hi, err == nil
}

// parseLines reads the line= of a frame: A, A-B or A-*.
func parseLines(w string) (lo, hi int, err error) {
	lo, hi, ok := repeat(w)
	if !ok {
		lo, err = strconv.Atoi(w)
		hi = lo
	}
	if err != nil || lo < 1 || hi != unbounded && hi < lo {
		return 0, 0, errors.New("a line, or lines as A-B")
	}
	return lo, hi, nil
}

func checkRepeat(lo, hi int) error {
	switch {
	case lo < 0 || lo > maxRepeat || hi > maxRepeat:
		return fmt.Errorf("at most %d frames; write M-* for any number", maxRepeat)
	case hi != unbounded && hi < lo, hi == 0:
		return fmt.Errorf("%d-%d takes no frame", lo, hi)
	}
	return nil
}

func (e *element) setNames(w string) error {
	off := e.column(w)
	for n := range strings.SplitSeq(w, "|") {
		switch {
		case n == "":
			return fmt.Errorf("empty name in %q", w)
		case strings.Trim(n, ".") == "" || strings.Trim(n, "…") == "":
			return fmt.Errorf("for frames that are left out write gap M-N, not %s", n)
		case strings.Trim(n, "?") == "":
			return fmt.Errorf("%s is no name; for frames without one write gap M-N", n)
		}
		e.words = append(e.words, spelling{n, off})
		off += len(n) + 1
		if isGlob(n) {
			e.globs = append(e.globs, n)
		} else {
			e.names = append(e.names, symname.Canonical(n))
		}
	}
	return nil
}

// setPHPNames reads name, class::method, or alternatives of either.
func (e *element) setPHPNames(w string) error {
	e.names = strings.Split(lower(w), "|")
	for _, n := range e.names {
		switch {
		case n == "":
			return fmt.Errorf("empty name in %q", w)
		case strings.Trim(n, ".") == "" || strings.Trim(n, "…") == "":
			return fmt.Errorf("for frames that are left out write gap M-N, not %s", n)
		case strings.HasPrefix(n, "{"): // {closure:/srv/a.php:3}
		case strings.HasSuffix(n, "()"):
			return fmt.Errorf("write the name without (): %s", strings.TrimSuffix(w, "()"))
		case strings.Contains(n, "->"):
			return fmt.Errorf("write %s, as reports do", strings.ReplaceAll(w, "->", "::"))
		}
	}
	return nil
}

// column finds a word of the line: the first of that spelling that stands alone.
func (e *element) column(w string) int {
	at := 0
	for f := range strings.FieldsSeq(e.text) {
		at += strings.Index(e.text[at:], f)
		if f == w {
			return at
		}
		at += len(f)
	}
	return 0
}

// attributes are the keys that can follow a name.
var attributes = []string{"mod", "file", "line", "inl", "as"}

// withAttributes reads what follows the name.
func (e element) withAttributes(words []string) (element, error) {
	seen := make(map[string]bool)
	for _, w := range words {
		key, val, ok := strings.Cut(w, "=")
		if seen[key] {
			return e, fmt.Errorf("%s stands here twice", key)
		}
		seen[key] = true
		if w == "unk" && !e.php {
			e.unk = true
			continue
		}
		if ok && val == "" && slices.Contains(attributes, key) {
			return e, fmt.Errorf("%s is empty", w)
		}
		if !ok || val == "" {
			return e, fmt.Errorf("%q is no attribute%s", w, didYouMean(w, []string{"unk", "mod=", "file=", "line=", "inl=", "as="}))
		}
		var err error
		switch {
		case key == "as":
			if !name.MatchString(val) {
				err = fmt.Errorf("%q can't be a name", val)
			}
			e.as = val
		case key == "file":
			e.file = val
		case key == "mod" && !e.php:
			e.module = val
		case key == "line":
			e.lineMin, e.lineMax, err = parseLines(val)
		case key == "inl" && !e.php:
			if val != "any" && val != "only" && val != "never" {
				err = errors.New("any, only or never")
			}
			e.inlined = val
		default:
			err = errors.New("no such attribute here" + didYouMean(key, attributes))
		}
		if err != nil {
			return e, fmt.Errorf("%s: %w", w, err)
		}
	}
	if e.any && !e.php && e.module == "" && e.max == 1 && e.min == 1 && e.as == "" && e.file == "" {
		return e, errors.New("any needs mod=, or write gap M-N")
	}
	return e, nil
}
