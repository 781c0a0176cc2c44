package capture

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/rules"
)

func TestRulesSeeEverythingThatACaptureHolds(t *testing.T) {
	c := &Capture{
		Target:      Target{PHPVersion: "8.2.36", SAPI: "cli", Libc: "glibc"},
		Observation: Observation{DurationMS: 3000, Breakpoints: []Breakpoint{{Symbol: "mmap"}, {Symbol: "mremap"}, {Symbol: "mmap"}}},
		Stacks: []stack.Stack{{Frames: []stack.Frame{
			{Kind: stack.Native, Function: "mremap", Raw: "__GI___mremap", Module: "libc.so.6", File: "m.c", Line: 32, Inlined: true, PC: 1},
			{Kind: stack.Native, Module: "php"},
			{Kind: stack.PHP, Function: "run", Class: "A", File: "/a.php", Line: 6, Internal: true},
		}}},
		Events: []Event{
			{At: time.Second, Kind: Stop, TID: 7, Symbol: "brk", Args: []uint64{1, 2}},
			{At: 2 * time.Second, Kind: Sample, TID: 8},
		},
		Facts: map[string]any{"proc.cpu_pct": 99.0},
	}
	want := &rules.Observation{
		Target: rules.Target{PHPVersion: "8.2.36", SAPI: "cli", Libc: "glibc"},
		Stacks: []rules.Stack{{Frames: []rules.Frame{
			{Kind: rules.Native, Name: "mremap", Raw: "__GI___mremap", Module: "libc.so.6", File: "m.c", Line: 32, Inlined: true},
			{Kind: rules.Native, Module: "php"},
			{Kind: rules.PHP, Name: "run", Class: "A", File: "/a.php", Line: 6, Internal: true},
		}}},
		Events: []rules.Event{
			{Kind: rules.Stop, At: time.Second, TID: 7, Symbol: "brk", Args: []uint64{1, 2}},
			{Kind: rules.Sample, At: 2 * time.Second, TID: 8},
		},
		Duration: 3 * time.Second,
		Watched:  []string{"mmap", "mremap", "brk"},
		Facts:    map[string]any{"proc.cpu_pct": 99.0},
	}
	if d := cmp.Diff(want, Observe(c)); d != "" {
		t.Error(d)
	}
	if !Observe(c).Stacks[0].Frames[1].Unresolved() {
		t.Error("an unknown native frame is resolved to rules")
	}
}
