package rules

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/rules/builtin"
)

// BenchmarkParse loads one rule: YAML, patterns and expressions.
func BenchmarkParse(b *testing.B) {
	text, err := os.ReadFile("builtin/mem.string-concat.yaml")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, ps := Parse("x.yaml", text); len(ps) > 0 {
			b.Fatal(ps)
		}
	}
}

// BenchmarkEvaluate runs the built-in rules over an observation with many
// different stacks of 40 native frames, one event each.
func BenchmarkEvaluate(b *testing.B) {
	set, ps := Load(builtin.FS)
	if len(ps) > 0 {
		b.Fatal(ps)
	}
	const stacks = 1000
	var ss []seen
	for i := range stacks {
		ss = append(ss, seen{fmt.Sprintf("mremap ? concat_function f%d %s execute_ex php:f php:main", i, strings.Repeat("g h ", 18)), 1, 1})
	}
	o := observe(ss...)
	for b.Loop() {
		if _, err := set.Evaluate(o, Options{}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/stacks/float64(len(set.Rules())), "ns/stack/rule")
}

// BenchmarkRules is what "rules bench" measures, on fewer stacks.
func BenchmarkRules(b *testing.B) {
	set, ps := Load(builtin.FS)
	if len(ps) > 0 {
		b.Fatal(ps)
	}
	var last *BenchResult
	for b.Loop() {
		r, err := set.Bench(BenchOptions{Stacks: 100_000, Frames: 40, Rules: 500, Naive: 200, Seed: 1})
		if err != nil {
			b.Fatal(err)
		}
		last = r
	}
	b.ReportMetric(float64(last.Match.Nanoseconds())/float64(last.Stacks), "ns/stack")
	b.ReportMetric(float64(last.Naive)/float64(last.Match/time.Duration(last.Stacks)), "times-naive")
}
