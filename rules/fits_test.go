package rules

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/phpwhy/phpwhy/rules/builtin"
)

func TestAnUndecidedRuleSaysThatItsStacksFit(t *testing.T) {
	const head = "schema: phpwhy/rule/v1\ntitle: t\nseverity: low\nmessage: m\n"
	set, problems := Load(fstest.MapFS{
		"a.yaml": {Data: []byte(head + "id: a.concat\nsupersedes: [a.mremap]\nmatch:\n  all:\n    - in: stops\n      stack: |\n        leaf mremap\n        0-2 any\n        concat_function\n    - {php: user as=site}\n    - expr: chain.steps > 3\n")},
		"b.yaml": {Data: []byte(head + "id: a.mremap\nmatch:\n  all:\n    - {in: stops, stack: leaf mremap}\n    - expr: chain.steps > 3\n")},
		"c.yaml": {Data: []byte(head + "id: a.other\nmatch:\n  all:\n    - in: stops\n      stack: |\n        leaf mremap\n        zend_hash_packed_grow\n    - expr: chain.steps > 3\n")},
		"d.yaml": {Data: []byte(head + "id: a.cpu\nmatch: {expr: proc.cpu_pct > 50.0}\n")},
		"e.yaml": {Data: []byte(head + "id: a.either\nmatch:\n  any:\n    - all:\n        - stack: leaf poll\n        - expr: chain.steps > 3\n    - all:\n        - stack: concat_function\n        - expr: chain.steps > 4\n")},
		"f.yaml": {Data: []byte(head + "id: a.refuted\nmatch:\n  all:\n    - stack: concat_function\n    - expr: chain.steps > 3\n    - not: {stack: leaf mremap}\n")},
	})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for name, text := range map[string]string{
		"a stop":               "#0  0x1 in mremap (addr=0x7fda7d200000, old_len=4096, new_len=8192, flags=0) at x.c:1\n#1  0x2 in zend_mm_realloc_huge () at y.c:2\n#2  0x3 in concat_function () at z.c:3\n#3  0x5 in execute_ex () at e.c:1\n#4  0x4 in main () at m.c:1\n",
		"text that tells less": "#0  0x1 in mremap () from libc.so.6\n#1  0x3 in concat_function () from php\n#2  0x5 in execute_ex () from php\n#3  0x4 in main () from php\n",
	} {
		o, err := ParseBacktrace(text)
		if err != nil {
			t.Fatal(err)
		}
		rep, err := set.Evaluate(o, Options{})
		if err != nil {
			t.Fatal(err)
		}
		var fits []string
		for _, r := range rep.Results {
			if r.Fits {
				fits = append(fits, r.Rule.ID)
				if r.Verdict != Undetermined {
					t.Errorf("%s: %s fits and is %v", name, r.Rule.ID, r.Verdict)
				}
			}
		}
		if !slices.Equal(fits, []string{"a.concat", "a.either"}) {
			t.Errorf("%s: %v fit", name, fits)
		}
	}
}

func TestSystemCallsWithoutStacksAreToldApart(t *testing.T) {
	for text, want := range map[string]error{
		"mremap(0x7f30b3b28000, 266240, 528384, MREMAP_MAYMOVE) = 0x7f30a3cd1000\nmmap(NULL, 266240, PROT_READ, MAP_PRIVATE, -1, 0) = 0x7f30b3b28000\n": ErrNoStacks,
		"nothing of the kind\n": ErrNoBacktrace,
	} {
		if _, err := ParseBacktrace(text); !errors.Is(err, want) || errors.Is(err, ErrNoStacks) != (want == ErrNoStacks) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// A pasted stack says nothing of processor time, yet what waits burns none.
func TestAPastedStackThatWaitsIsNoLoopThatBurnsCPU(t *testing.T) {
	set, problems := Load(builtin.FS)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, c := range []struct {
		file string
		want bool
	}{
		{"sleep-8.2.31-stripped.colour.txt", false},
		{"concat-8.2.32-dwarf.eu-stack.txt", true}, // in a handler of the interpreter
	} {
		for _, r := range evaluate(t, set, pasted(t, c.file)).Results {
			if r.Rule.ID == "cpu.php-loop" && r.Fits != c.want {
				t.Errorf("%s: fits %v, %v", c.file, r.Fits, r.Verdict)
			}
		}
	}
}

// TestPastedStacksLeadToTheirCause: rules that ask for less by name fit many stacks.
func TestPastedStacksLeadToTheirCause(t *testing.T) {
	set, problems := Load(builtin.FS)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	files, err := os.ReadDir("testdata/bt")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		kind, _, _ := strings.Cut(f.Name(), "-")
		want := map[string]string{"array": "mem.array-append", "concat": "mem.string-concat", "recursion": "mem.recursion", "sleep": ""}
		if f.Name() == "concat-8.2.32-dwarf.eu-stack.txt" { // taken between two growths
			want = map[string]string{"concat": "cpu.php-loop"}
		}
		lead, most := "", -1.0
		for _, r := range evaluate(t, set, pasted(t, f.Name())).Results {
			if r.Fits && (r.Specific > most || r.Specific == most && lead > r.Rule.ID) {
				lead, most = r.Rule.ID, r.Specific
			}
		}
		if lead != want[kind] {
			t.Errorf("%s leads to %q, not to %q", f.Name(), lead, want[kind])
		}
	}
}
