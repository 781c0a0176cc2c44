package capture

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/phpwhy/phpwhy/internal/stack"
)

func withValues() *Capture {
	c := sampleCapture()
	c.Stacks[0].Frames[4].Values = []stack.Value{
		{Name: "$row", Kind: "argument", Type: "int", Value: "5"},
		{Name: "$caf\xe9", Kind: "variable", Type: "string", Value: "[redacted]", Redacted: true},
	}
	c.Stacks[0].Frames[5].Values = []stack.Value{} // asked for, and there are none
	c.Variables = []Variable{{Var: "row", At: "report.php:6", Seen: 2, First: "1", Last: "5", Distinct: 2, Trend: "grows"}, {Var: "x", At: "\xff"}}
	if err := c.Normalize(); err != nil {
		panic(err)
	}
	return c
}

func TestValuesComeBackAsTheyWereWritten(t *testing.T) {
	want := withValues()
	data := written(t, want)
	got, err := Read(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if got.Stacks[0].Frames[5].Values == nil || got.Stacks[1].Frames[4].Values != nil {
		t.Error("no values and none asked for look the same")
	}
	if strings.Contains(string(written(t, sampleCapture())), "values") || strings.Contains(string(written(t, sampleCapture())), "variables") {
		t.Error("a capture without values says something of them")
	}
}

func TestStacksThatDifferInValuesAreOne(t *testing.T) {
	a, b := concatStack(6), concatStack(6)
	a.Frames[4].Values = []stack.Value{{Name: "$i", Value: "1"}}
	b.Frames[4].Values = []stack.Value{{Name: "$i", Value: "2"}}
	var in Interner
	in.Add(a)
	if _, added := in.Add(b); added || in.Len() != 1 {
		t.Errorf("%d stacks", in.Len())
	}
}

func TestTooManyValuesAreRefused(t *testing.T) {
	c := withValues()
	c.Stacks[0].Frames[4].Values = make([]stack.Value, MaxValues+1)
	if err := Write(io.Discard, c); !errors.Is(err, ErrLimit) {
		t.Errorf("values: %v", err)
	}
	c = withValues()
	c.Variables = make([]Variable, MaxVars+1)
	if err := Write(io.Discard, c); !errors.Is(err, ErrLimit) {
		t.Errorf("variables: %v", err)
	}
	if err := c.Normalize(); !errors.Is(err, ErrLimit) {
		t.Errorf("normalize: %v", err)
	}
}
