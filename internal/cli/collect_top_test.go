package cli

import (
	"strings"
	"testing"

	"github.com/phpwhy/phpwhy/internal/triage"
)

func TestTheTableFitsTheTerminalAndCanBeSorted(t *testing.T) {
	m := &triage.Model{Summary: "40 of 43\x1b[2J workers", Workers: make([]triage.Worker, 43), Groups: []triage.Group{
		{Title: "in flock()", Workers: make([]int, 40), Ages: &triage.Ages{Max: 1000}},
		{Title: "sleeps", Rule: "wait.sleep", Workers: make([]int, 2), Ages: &triage.Ages{Max: 62_300}, Site: triage.Site{File: "a.php", Line: 5}},
		{Title: "idle", Rule: "idle.fpm-accept", Workers: make([]int, 1)},
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
		'a': "      2     1m2.3s  wait.sleep                 sleeps; at a.php:5", 'c': "     40        1s  -                          in flock()"} {
		if got := strings.Join(strings.Fields(first(by)), " "); got != strings.Join(strings.Fields(want), " ") {
			t.Errorf("by %c: %q, want %q", by, got, want)
		}
	}
	if lines := draw('w', 20, 7); !strings.Contains(lines[len(lines)-1], "and 2 more groups") {
		t.Errorf("%q", lines)
	}
}
