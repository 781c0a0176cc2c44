package report

import (
	"strings"
	"testing"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/stack"
)

// inside is a stack of a worker in an internal function of PHP, "" for PHP code.
func inside(call string) stack.Stack {
	fs := []stack.Frame{native("poll", "libc.so.6", 0x1000)}
	if call != "" {
		fs = append(fs, stack.Frame{Kind: stack.PHP, Function: call, Internal: true})
	}
	return stack.Stack{End: stack.Root, Frames: append(fs, stack.Frame{Kind: stack.PHP, Function: "page", File: "/srv/app/page.php", Line: 7})}
}

func TestWhatNoRuleExplainsIsDescribed(t *testing.T) {
	tests := map[string]struct {
		facts map[string]any
		calls []string // one a sample
		want  string   // "" for no such line
	}{
		"computing in a function": {
			map[string]any{"proc.runnable_pct": 99.0, "proc.cpu_pct": 98.4}, []string{"imagefilter", "imagefilter", "md5"},
			"it computes, in imagefilter() in 2 of 3 samples; it used 98 % of a processor"},
		"computing all over the place": {
			map[string]any{"proc.runnable_pct": 99.0, "proc.cpu_pct": 98.4}, []string{"", "md5", "", "strlen", ""},
			"it computes; it used 98 % of a processor"},
		"without a processor to compute on": {
			map[string]any{"proc.runnable_pct": 99.0, "proc.cpu_pct": 28.0}, []string{"md5"},
			"it computes, in md5(); it used 28 % of a processor and stood in line for one 71 % of the time"},
		"waiting for a peer": {
			map[string]any{"proc.runnable_pct": 0.1, "proc.cpu_pct": 0.1, "proc.state": "S", "wait.on": "192.0.2.7:389", "wait.syscall": "poll", "fd.quiet_s": 5.53}, []string{"ldap_bind", "ldap_bind"},
			"it waits in ldap_bind() for 192.0.2.7:389; the connection has carried nothing for 5.5 s"},
		"waiting for nothing but time": {
			map[string]any{"proc.runnable_pct": 2.2, "proc.cpu_pct": 0.1, "proc.state": "S"}, []string{"usleep", "usleep", "proc_get_status"},
			"it waits in usleep() in 2 of 3 samples"},
		"waiting, at one look": {
			map[string]any{"proc.state": "S", "wait.on": "/srv/x.fifo", "wait.syscall": "read"}, []string{""},
			"it waits in read() for /srv/x.fifo"},
		"waiting for nobody with a name": {
			map[string]any{"proc.state": "S", "wait.on": "unix", "fd.kind": "unix", "wait.syscall": "poll"}, []string{"curl_exec"},
			"it waits in curl_exec()\n"},
		"running, at one look": {map[string]any{"proc.state": "R", "wait.on": "192.0.2.7:389"}, []string{"md5"}, ""},
		"nothing known":        {nil, []string{"md5"}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := base(inside(tt.calls[0]), 0, len(tt.calls))
			c.Facts = tt.facts
			for i, call := range tt.calls[1:] {
				c.Stacks = append(c.Stacks, inside(call))
				c.Events[i+1].Stack = i + 1
			}
			got := written(t, c)
			if tt.want == "" && (strings.Contains(got, "it computes") || strings.Contains(got, "it waits")) || !strings.Contains(got, tt.want) {
				t.Errorf("want %q in\n%s", tt.want, got)
			}
		})
	}
}

func written(t *testing.T, c *capture.Capture) string {
	t.Helper()
	var b strings.Builder
	if err := Text(&b, Build(c, Verdict{}), TextOptions{}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestARequestThatBeganMeanwhileIsCalledSo(t *testing.T) {
	for age, want := range map[int64]string{
		442:  "GET /x, for 442.0 ms, begun while the worker was watched",
		5300: "GET /x, for 5.3 s\n",
	} {
		c := base(inside("md5"), 0, 3) // watched for 3 s
		c.Target.Request = &capture.Request{Method: "GET", URI: "/x", AgeMS: &age}
		if got := written(t, c); !strings.Contains(got, want) {
			t.Errorf("age %d: want %q in\n%s", age, want, got)
		}
	}
}
