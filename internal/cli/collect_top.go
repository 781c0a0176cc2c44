package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
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

	build *triage.Builder // of the present round

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
	out, ok := s.out.(*os.File)
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
	return t, nil
}

func (t *top) close() {
	t.closed.Do(func() {
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

// drawTop writes the table, one line per group.
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
	line("phpwhy: round %d, %d workers   sort by w: workers, a: request age, c: cause   %s   q: end", round, len(m.Workers), state)
	line("%s", m.Summary)
	line(" ")
	line("%7s  %8s  %-26s %s", "workers", "age", "cause", "what they do")
	groups := slices.Clone(m.Groups)
	age := func(g *triage.Group) int64 {
		if g.Ages == nil {
			return -1
		}
		return g.Ages.Max
	}
	switch by {
	case 'a':
		slices.SortStableFunc(groups, func(a, b triage.Group) int { return cmp.Compare(age(&b), age(&a)) })
	case 'c':
		slices.SortStableFunc(groups, func(a, b triage.Group) int { return cmp.Compare(a.Rule, b.Rule) })
	}
	const head = 5
	for i := range groups {
		if i >= height-head-1 {
			line("and %d more groups", len(groups)-i)
			break
		}
		g := &groups[i]
		old := "-"
		if a := age(g); a >= 0 {
			old = (time.Duration(a) * time.Millisecond).Truncate(100 * time.Millisecond).String()
		}
		what := g.Title
		if len(g.Waits) > 0 {
			what = m.Waiting(&g.Waits[0])
		}
		if g.Site.File != "" {
			what += fmt.Sprintf("; at %s:%d", g.Site.File, g.Site.Line)
		}
		line("%7d  %8s  %-26s %s", len(g.Workers), old, cmp.Or(g.Rule, "-"), what)
	}
	b.WriteString(clearBelow)
	fmt.Fprint(w, b.String())
}
