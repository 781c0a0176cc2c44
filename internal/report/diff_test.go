package report

import (
	"bytes"
	"strings"
	"testing"
	"unicode"

	"github.com/phpwhy/phpwhy/internal/compare"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/triage"
)

func TestDiffIsVisibleAndBounded(t *testing.T) {
	const evil = "a\nb\x1b[31m\u202e\xff"
	d := &compare.Diff{A: compare.Side{Sources: []string{evil, evil, evil, evil}, Workers: 1, Events: 2},
		Findings: []compare.Finding{{Change: compare.New, Title: evil, Message: evil, Rule: evil, WorkersB: 3}}, Notes: []string{evil}}
	for range 100 {
		d.Workers = append(d.Workers, compare.Worker{Change: compare.Moved, Host: evil, PID: 7, DoesA: evil, SiteB: triage.Site{Function: evil, File: evil, Line: 3}})
		s := compare.Stack{Change: compare.Grown, CountA: 1, CountB: 9, ShareA: 0.001, ShareB: 0.009}
		for range 100 {
			s.Frames = append(s.Frames, stack.Frame{Kind: stack.Native, Module: evil}, stack.Frame{Kind: stack.PHP, Function: evil, Class: evil, File: evil})
		}
		d.Stacks = append(d.Stacks, s)
	}
	var out bytes.Buffer
	if err := DiffText(&out, d, TextOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, r := range out.String() {
		if r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r)) {
			t.Fatalf("%U in the text", r)
		}
	}
	for _, want := range []string{"+ new    a\\nb", "0 → 3 workers", "0.1 % → 0.9 %", "… 188 more frames", "92 more; --format json has every one", "80 more; --format json", "and 1 more)", "note: a\\nb"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in the text", want)
		}
	}
	if n := strings.Count(out.String(), "\n"); n > 200 {
		t.Errorf("%d lines", n)
	}
	out.Reset()
	if err := DiffJSON(&out, d); err != nil || bytes.ContainsAny(out.Bytes(), "\x1b\u202e") {
		t.Errorf("JSON: %v", err)
	}
}
