package rules_test

import (
	"fmt"
	"testing/fstest"
	"time"

	"github.com/phpwhy/phpwhy/rules"
)

const concat = `schema: phpwhy/rule/v1
id: mem.example
title: a string is appended to without end
severity: high
match:
  all:
    - in: stops
      share: 0.8
      stack: |
        leaf mremap
        0-2 zend_mm_* unk
        concat_function
      php: |
        user as=site
    - expr: chain.steps >= 2
bind: {n: chain.steps, len: chain.end_bytes}
score: {base: 0.9, per_unknown: -0.1}
message: "{{site}} appends to one string: {{n}} growths, now {{len|bytes}}"
`

func Example() {
	set, problems := rules.Load(fstest.MapFS{"example.yaml": {Data: []byte(concat)}})
	for _, p := range problems {
		fmt.Println(p)
	}
	o := &rules.Observation{
		Watched:  []string{"mremap"},
		Duration: time.Second,
		Stacks: []rules.Stack{{Frames: []rules.Frame{
			{Name: "mremap", Module: "libc.so.6"},
			{Module: "php8.2"}, // a static function of a stripped binary
			{Name: "concat_function", Module: "php8.2"},
			{Name: "execute_ex", Module: "php8.2"},
			{Kind: rules.PHP, Name: "buildReport", File: "/srv/app/report.php", Line: 6},
		}}},
	}
	for i := range uint64(3) {
		o.Events = append(o.Events, rules.Event{Kind: rules.Stop, Symbol: "mremap",
			Args: []uint64{0x7fda7d200000, 4<<20 + i*4096, 4<<20 + (i+1)*4096, 0}})
	}
	report, err := set.Evaluate(o, rules.Options{})
	if err != nil {
		fmt.Println(err)
	}
	for _, f := range report.Findings {
		fmt.Printf("%s %.2f: %s\n", f.Rule, f.Confidence, f.Message)
	}
	// Output: mem.example 0.80: /srv/app/report.php:6 appends to one string: 3 growths, now 4.0 MiB
}

// A rule that lacks evidence says so; it does not say that it doesn't match.
func ExampleSet_Evaluate_undetermined() {
	set, _ := rules.Load(fstest.MapFS{"example.yaml": {Data: []byte(concat)}})
	dump := &rules.Observation{
		Stacks: []rules.Stack{{Frames: []rules.Frame{{Name: "concat_function"}}}},
		Events: []rules.Event{{Kind: rules.Sample}},
	}
	report, _ := set.Evaluate(dump, rules.Options{})
	for _, r := range report.Results {
		fmt.Println(r.Verdict)
		for _, m := range r.Missing {
			fmt.Println("missing:", m)
		}
	}
	// Output:
	// undetermined
	// missing: stops (needs: attach with breakpoints; dump takes none)
	// missing: chain.steps (needs: attach with breakpoints on mmap and mremap)
}
