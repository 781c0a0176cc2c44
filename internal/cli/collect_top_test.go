package cli

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/collect"
	"github.com/phpwhy/phpwhy/internal/observe"
	"github.com/phpwhy/phpwhy/internal/testphp"
	"github.com/phpwhy/phpwhy/internal/triage"
	"github.com/phpwhy/phpwhy/internal/workers"
)

func TestTheTableFitsTheTerminalAndCanBeSorted(t *testing.T) {
	m := &triage.Model{Summary: "40 of 43\x1b[2J workers", Workers: make([]triage.Worker, 43), Groups: []triage.Group{
		{Title: "in flock()", Workers: make([]int, 40), Ages: &triage.Ages{Max: 1000}},
		{Title: "sleeps", Rule: "wait.sleep", Workers: make([]int, 2), Ages: &triage.Ages{Max: 62_300}, Site: triage.Site{File: "a.php", Line: 5}},
		{Title: "idle", Rule: "idle.fpm-accept", Kind: "benign", Workers: make([]int, 1)},
	}}
	draw := func(by byte, width, height int) []string {
		var b strings.Builder
		drawTop(&b, m, 7, by, false, width, height)
		s := strings.TrimSuffix(strings.TrimPrefix(b.String(), home), clearBelow)
		lines := strings.Split(strings.TrimSuffix(strings.ReplaceAll(s, clearRight, ""), "\r\n"), "\r\n")
		for _, l := range lines {
			if n := len([]rune(l)); n > width || strings.Contains(l, "\x1b") {
				t.Errorf("%d columns of %d: %q", n, width, l)
			}
		}
		if len(lines) > height {
			t.Errorf("%d lines of %d", len(lines), height)
		}
		return lines
	}
	first := func(by byte) string { return draw(by, 200, 24)[4] }
	for by, want := range map[byte]string{'w': "     40        1s  -                          in flock()",
		'a': "      2     1m2.3s  wait.sleep                 sleeps; at a.php:5", 'c': "      2     1m2.3s  wait.sleep                 sleeps; at a.php:5"} {
		if got := strings.Join(strings.Fields(first(by)), " "); got != strings.Join(strings.Fields(want), " ") {
			t.Errorf("by %c: %q, want %q", by, got, want)
		}
	}
	if lines := draw('w', 20, 7); !strings.Contains(lines[len(lines)-1], "and 2 more groups") {
		t.Errorf("%q", lines)
	}
}

func TestWhatMattersIsThereInEightyColumns(t *testing.T) {
	m := &triage.Model{Summary: "37 of 40 workers wait", Workers: make([]triage.Worker, 40), Groups: []triage.Group{
		{Title: "a file is locked by another process", Rule: "lock.flock", Kind: "cause", Workers: make([]int, 37), Site: triage.Site{File: "/srv/www/app/releases/20261130/src/Session/Handler.php", Line: 4711},
			Waits: []triage.Wait{{Kind: "flock", What: "/srv/www/app/shared/var/locks/a-rather-long-name.lock", HolderPID: 812, Workers: make([]int, 37)}}}}}
	m.Groups[0].Waits[0].Holder = -1
	var b strings.Builder
	drawTop(&b, m, 12, 'w', false, 80, 24)
	s := strings.ReplaceAll(b.String(), clearRight, "")
	for _, want := range []string{"workers▼", "w: workers, a: age, c: cause", "q: end", "lock.flock", "wait for flock", "Handler.php:4711"} {
		if !strings.Contains(s, want) {
			t.Errorf("no %q in\n%s", want, s)
		}
	}
	b.Reset()
	drawTop(&b, m, 12, 'c', true, 80, 24)
	if s := b.String(); !strings.Contains(s, "cause▼") || !strings.Contains(s, "PAUSED") || strings.Contains(s, "workers▼") {
		t.Errorf("%q", s)
	}
}

// The table is of one round, and yet tells what lasts since the rounds before.
func TestTheTableNamesTheCauseOfAWait(t *testing.T) {
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "sleep.php"))
	out, err := os.Create(filepath.Join(t.TempDir(), "screen"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	j := judged{}
	table := &top{out: out, set: j.load().set, sort: 'w', build: triage.NewBuilder()}
	opt := collect.Options{Filter: workers.Filter{PIDs: []int{w.PID}}, Every: 300 * time.Millisecond, For: 1500 * time.Millisecond}
	if _, err := collect.Run(context.Background(), observe.New(), opt, &tee{build: triage.NewBuilder(), show: table}); err != nil {
		t.Fatal(err)
	}
	if g := table.model.Groups[0]; table.n < 3 || g.Rule != "wait.sleep" || table.model.Rounds != table.n || table.model.Looks != 1 {
		t.Errorf("round %d: %+v", table.n, g)
	}
	screen, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	// The first look is one moment.
	rounds := strings.Split(string(screen), home)
	if strings.Contains(rounds[1], "wait.sleep") || !strings.Contains(rounds[len(rounds)-1], "wait.sleep") {
		t.Errorf("%q", rounds)
	}
}
