package zend_test

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/testphp"
	"github.com/phpwhy/phpwhy/internal/zend"
)

// truth is what a script says of itself: which frames may stand on which, and
// where its functions are.
type truth struct {
	file  string
	lines []string            // of the source, the first at 1
	pairs map[string][]string // "caller > callee": what the caller's line contains
	spans map[string][][2]int // function: its lines
}

var (
	pairLine = regexp.MustCompile(`^//: (\S+) > (\S+) = (.*)$`)
	funcLine = regexp.MustCompile(`^( *).*function (\w*) ?\(`)
	classOf  = regexp.MustCompile(`^class (\w+)`)
)

func readTruth(t testing.TB, file string) *truth {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	tr := &truth{file: file, lines: append([]string{""}, strings.Split(string(b), "\n")...), pairs: map[string][]string{}, spans: map[string][][2]int{}}
	tr.spans["{main}"] = [][2]int{{1, len(tr.lines)}}
	class := ""
	for n, line := range tr.lines {
		if m := pairLine.FindStringSubmatch(line); m != nil {
			tr.pairs[m[1]+" > "+m[2]] = append(tr.pairs[m[1]+" > "+m[2]], m[3])
		}
		if m := classOf.FindStringSubmatch(line); m != nil {
			class = m[1] + "::"
		}
		if line == "}" {
			class = ""
		}
		m := funcLine.FindStringSubmatch(line)
		if m == nil || strings.HasPrefix(line, "//") {
			continue
		}
		name, end := class+m[2], n
		if m[2] == "" {
			name = "{closure}"
		}
		for !strings.HasPrefix(tr.lines[end], m[1]+"}") {
			end++
		}
		tr.spans[name] = append(tr.spans[name], [2]int{n, end})
	}
	return tr
}

// name is a frame's as the script knows it; 8.4 names closures by their place.
func (tr *truth) name(f *zend.Frame) string {
	n := f.Function
	if strings.HasPrefix(n, "{closure") {
		n = "{closure}"
	}
	if f.Class != "" {
		n = f.Class + "::" + n
	}
	return n
}

// check returns what is wrong with a stack, "" when nothing is.
func (tr *truth) check(s *zend.Stack) string {
	if s.Err != nil {
		return s.Err.Error()
	}
	if len(s.Frames) == 0 || tr.name(&s.Frames[len(s.Frames)-1]) != "{main}" {
		return "the outermost frame is not {main}"
	}
	for i := range s.Frames {
		f := &s.Frames[i]
		name := tr.name(f)
		if !f.Internal {
			if f.File != tr.file {
				return fmt.Sprintf("#%d %s is in %q", i, name, f.File)
			}
			in := f.Line == 0 && i == 0
			for _, sp := range tr.spans[name] {
				in = in || f.Line >= sp[0] && f.Line <= sp[1]
			}
			if !in {
				return fmt.Sprintf("#%d %s has no line %d", i, name, f.Line)
			}
		}
		if i == 0 {
			continue
		}
		callee := tr.name(&s.Frames[i-1])
		texts, ok := tr.pairs[name+" > "+callee]
		if !ok {
			return fmt.Sprintf("#%d %s calls no %s", i, name, callee)
		}
		right := f.Internal
		for _, text := range texts {
			right = right || strings.Contains(tr.lines[f.Line], text)
		}
		if !right {
			return fmt.Sprintf("#%d %s calls %s in line %d: %s", i, name, callee, f.Line, tr.lines[f.Line])
		}
	}
	return ""
}

// TestSamplesOfARunningScriptAreNeverTorn reads the stack of a script that
// does nothing but call, without stopping it.
func TestSamplesOfARunningScriptAreNeverTorn(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	const most, tries = 10_000, 200
	for _, b := range testphp.AllBuilds(t) {
		// How a thread's globals are found does not matter here.
		if strings.HasSuffix(b.Name, "zts stripped") {
			continue
		}
		file := testphp.Root(t) + "/internal/zend/testdata/_busy.php"
		if b.Version(t) < "8.1" {
			file = testphp.Root(t) + "/internal/zend/testdata/_busy5.php"
		}
		t.Run(b.Name, func(t *testing.T) {
			tr := readTruth(t, file)
			w := testphp.Start(t, b.PHP(t), file, b.Args...)
			live, rt := openRuntime(t, w.PID)
			pids.Store(rt, w.PID)
			th := thread(t, rt)
			wanted := most
			if b.Name != testphp.StrippedBuilds[0].Name {
				wanted /= 5
			}
			end := time.Now().Add(20 * time.Second)
			var good, never, torn, bad int
			seen := map[string]bool{}
			for good < wanted && time.Now().Before(end) {
				s, n := th.Sample(live.Mem, tries)
				torn += n
				if errors.Is(s.Err, zend.ErrTorn) {
					if never++; len(s.Frames) != 0 {
						t.Fatal("a torn stack shows frames")
					}
					continue
				}
				good++
				if why := tr.check(&s); why != "" {
					if bad++; bad <= 5 {
						t.Errorf("%s\n%s", why, outline(tr, &s))
					}
				}
				for i := 1; i < len(s.Frames); i++ {
					seen[tr.name(&s.Frames[i])+" > "+tr.name(&s.Frames[i-1])] = true
				}
			}
			t.Logf("%d samples, %d of them wrong; %d tries saw a torn stack, %d samples found nothing else; %d of %d pairs seen",
				good, bad, torn, never, len(seen), len(tr.pairs))
			if good < wanted/10 || len(seen) < 10 {
				t.Errorf("too few to judge by")
			}
		})
	}
}

func outline(tr *truth, s *zend.Stack) string {
	var b strings.Builder
	for i := range s.Frames {
		fmt.Fprintf(&b, "#%d %s %s:%d %s\n", i, tr.name(&s.Frames[i]), s.Frames[i].File, s.Frames[i].Line, s.Frames[i].Opcode)
	}
	return b.String()
}
