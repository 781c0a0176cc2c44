package rules

import (
	"strings"
	"testing"
)

func TestTheUsualCallIsEvidence(t *testing.T) {
	call := func(class, name string) Frame { return Frame{Kind: PHP, Class: class, Name: name, Internal: true} }
	user := Frame{Kind: PHP, Name: "report", File: "/srv/app/report.php", Line: 7}
	o := &Observation{Facts: map[string]any{}, Stacks: []Stack{
		{Frames: []Frame{call("mysqli", "query"), user}},
		{Frames: []Frame{call("", "usleep"), user}},
		{Frames: []Frame{user, call("", "array_map")}}, // in PHP code, not in array_map
	}}
	for _, c := range []struct {
		name   string
		stacks []int
		want   string
	}{
		{"a method most often", []int{0, 1, 0}, "mysqli::query"},
		{"a function most often", []int{0, 1, 1, 2}, "usleep"},
		{"PHP code only", []int{2, 2}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			o.Events = nil
			for _, s := range c.stacks {
				o.Events = append(o.Events, Event{Kind: Sample, Stack: s})
			}
			got, known := collect(o)["stack.call"]
			if known != (c.want != "") || known && got != c.want {
				t.Errorf("%v, not %q", got, c.want)
			}
		})
	}
}

func TestSecondsInMessages(t *testing.T) {
	s := mustLoad(t, strings.Replace(rule("a.b", "{expr: wait.for_s > 0.0}", "bind: {s: wait.for_s}"), "message: m", `message: "{{s|secs}}"`, 1))
	for secs, want := range map[float64]string{0.84: "0.8 s", 12.9: "12 s", 86400: "86,400 s"} {
		o := observe(seen{"poll", 0, 1})
		o.Facts["wait.for_s"] = secs
		if rep := evaluate(t, s, o); len(rep.Findings) != 1 || rep.Findings[0].Message != want {
			t.Errorf("%v s: %+v, not %q", secs, rep.Findings, want)
		}
	}
}
