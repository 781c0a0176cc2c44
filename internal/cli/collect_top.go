package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/triage"
	"github.com/phpwhy/phpwhy/internal/workers"
	"github.com/phpwhy/phpwhy/rules"
)

// top is a table of what the workers do, renewed with each round.
type top struct {
	out    *os.File
	in     *os.File
	state  *term.State
	set    *rules.Set
	cancel func()
	closed sync.Once

	build *triage.Builder // of the present round: its looks know what lasts since before

	resized chan os.Signal

	mu     sync.Mutex // guards what follows
	model  *triage.Model
	n      int
	sort   byte // w, a or c
	paused chan struct{}
}

// What top writes to the terminal: the other screen without a cursor, and back.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l"
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H"
	clearBelow  = "\x1b[J"
	clearRight  = "\x1b[K"
)

func newTop(s streams, set *rules.Set, cancel func()) (*top, error) {
	out, ok := asFile(s.out)
	in, ok2 := s.in.(*os.File)
	if !ok || !ok2 || !term.IsTerminal(int(out.Fd())) || !term.IsTerminal(int(in.Fd())) {
		return nil, usageErrorf("--top needs a terminal; leave it out to get a report")
	}
	state, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return nil, usageErrorf("--top: %v", err)
	}
	t := &top{out: out, in: in, state: state, set: set, cancel: cancel, sort: 'w', build: triage.NewBuilder()}
	fmt.Fprint(out, enterScreen)
	go t.keys()
	// Also while it is paused: a terminal that was made larger shows nothing new by itself.
	t.resized = make(chan os.Signal, 1)
	signal.Notify(t.resized, syscall.SIGWINCH)
	go func() {
		for range t.resized {
			t.mu.Lock()
			t.draw()
			t.mu.Unlock()
		}
	}()
	return t, nil
}

func (t *top) close() {
	t.closed.Do(func() {
		signal.Stop(t.resized)
		close(t.resized)
		t.mu.Lock()
		defer t.mu.Unlock()
		t.model = nil
		fmt.Fprint(t.out, leaveScreen)
		_ = term.Restore(int(t.in.Fd()), t.state)
	})
}

// keys obeys single keys. A raw terminal makes no signal of Ctrl-C.
func (t *top) keys() {
	b := make([]byte, 1)
	for {
		if _, err := t.in.Read(b); err != nil {
			return
		}
		t.mu.Lock()
		switch b[0] {
		case 'q', 3, 4: // Ctrl-C, Ctrl-D
			t.cancel()
			t.resume()
		case 'w', 'a', 'c':
			t.sort = b[0]
		case 'p', ' ':
			if t.paused == nil {
				t.paused = make(chan struct{})
			} else {
				t.resume()
			}
		}
		t.draw()
		t.mu.Unlock()
	}
}

func (t *top) resume() {
	if t.paused != nil {
		close(t.paused)
		t.paused = nil
	}
}

// hold waits while the table is paused: nobody is stopped meanwhile.
func (t *top) hold(ctx context.Context) {
	t.mu.Lock()
	p := t.paused
	t.mu.Unlock()
	if p == nil {
		return
	}
	select {
	case <-p:
	case <-ctx.Done():
	}
}

func (t *top) round(int, int) { t.build = triage.NewBuilder() }

func (t *top) look(h capture.Header, w *workers.Worker, round int, at time.Duration, c *capture.Capture) {
	t.build.Capture(h, w.PID, w.Start, w.Pool, round, at, c)
}

func (t *top) done(n int) {
	m := t.build.Model(t.set, time.Now())
	t.mu.Lock()
	defer t.mu.Unlock()
	t.model, t.n = m, n
	t.draw()
}

// draw is called with the lock held.
func (t *top) draw() {
	if t.model == nil {
		return
	}
	width, height, err := term.GetSize(int(t.out.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		width, height = 80, 24
	}
	drawTop(t.out, t.model, t.n, t.sort, t.paused != nil, width, height)
}

// The columns of the table but for the last: numbers, ages and causes.
const (
	workersWidth, ageWidth = 7, 8
	causeWidth             = 22 // the longest of the built-in rules
	narrow                 = 60 // below it the cause goes with what they do
)

// drawTop writes the table, one line per group. Where a line is too narrow its middle is
// left out: it begins with what they wait for and ends with the place in the code.
func drawTop(w io.Writer, m *triage.Model, round int, by byte, paused bool, width, height int) {
	var b strings.Builder
	line := func(format string, args ...any) {
		r := []rune(printable(fmt.Sprintf(format, args...)))
		b.WriteString(string(r[:min(len(r), max(1, width))]))
		b.WriteString(clearRight + "\r\n")
	}
	b.WriteString(home)
	state := "p: pause"
	if paused {
		state = "PAUSED, p: go on"
	}
	keys := "sort w: workers, a: age, c: cause  " + state + "  q: end"
	head := fmt.Sprintf("round %d, %d workers  ", round, len(m.Workers))
	if len(head)+len(keys) > width { // keys matter more than the count
		head = fmt.Sprintf("%d  ", round)
	}
	line("%s%s", head, keys)
	line("%s", middle(m.Summary, width))
	line(" ")
	mark := func(key byte, title string) string {
		if key == by {
			return title + "▼"
		}
		return title
	}
	cause := causeWidth
	if width < narrow {
		cause = 0
	}
	row := func(n, age, rule, what string) {
		if cause == 0 {
			if rule != "" && rule != "-" {
				what = rule + " " + what
			}
			line("%*s %*s  %s", workersWidth+1, n, ageWidth, age, middle(what, width-workersWidth-ageWidth-4))
			return
		}
		line("%*s %*s  %-*s %s", workersWidth+1, n, ageWidth, age, cause, rule, middle(what, width-workersWidth-ageWidth-cause-5))
	}
	row(mark('w', "workers"), mark('a', "age"), mark('c', "cause"), "what they do")
	groups := sortedGroups(m, by)
	const above = 5
	for i := range groups {
		if i >= height-above-1 {
			line("and %d more groups", len(groups)-i)
			break
		}
		g := &groups[i]
		old := "-"
		if a := oldest(g); a >= 0 {
			old = (time.Duration(a) * time.Millisecond).Truncate(100 * time.Millisecond).String()
		}
		what := g.Title
		if len(g.Waits) > 0 {
			what = m.Waiting(&g.Waits[0])
		}
		if g.Site.File != "" {
			what += fmt.Sprintf("; at %s:%d", g.Site.File, g.Site.Line)
		}
		row(fmt.Sprint(len(g.Workers)), old, cmp.Or(g.Rule, "-"), what)
	}
	b.WriteString(clearBelow)
	fmt.Fprint(w, b.String())
}

// oldest is the age of a group's oldest request, -1 without any.
func oldest(g *triage.Group) int64 {
	if g.Ages == nil {
		return -1
	}
	return g.Ages.Max
}

// sortedGroups are the groups by number of workers, by age, or as the report has
// them: causes first.
func sortedGroups(m *triage.Model, by byte) []triage.Group {
	groups := slices.Clone(m.Groups)
	slices.SortStableFunc(groups, func(a, b triage.Group) int {
		switch by {
		case 'a':
			return cmp.Compare(oldest(&b), oldest(&a))
		case 'c':
			return cmp.Or(cmp.Compare(a.Rank(), b.Rank()), cmp.Compare(len(b.Workers), len(a.Workers)))
		}
		return cmp.Compare(len(b.Workers), len(a.Workers))
	})
	return groups
}

// middle shortens a text to a width by leaving out its middle.
func middle(s string, width int) string {
	r := []rune(s)
	if len(r) <= width || width < 1 {
		return s
	}
	tail := (width - 1) / 2
	return string(r[:width-1-tail]) + "…" + string(r[len(r)-tail:])
}
