package rules

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
	"unicode/utf16"
)

const newcomers = `schema: phpwhy/rule/v1
id: my.sleep
title: it sleeps
severity: medium
match:
  all:
    - in: samples
      share: 0.8
      stack: |
        leaf clock_nanosleep
        gap 0-6
        zif_sleep
      php: |
        leaf internal sleep
        user as=site
message: "{{site}} sleeps"
`

// TestAMistakeIsToldWithItsRemedy makes one mistake at a time in a good rule, as
// people make them who write their first one.
func TestAMistakeIsToldWithItsRemedy(t *testing.T) {
	for _, c := range []struct{ name, from, to, want string }{
		{"none", "", "", ""},
		{"a tab", "    - in", "\t- in", "7:1 E001 found character that cannot start any token; indent with blanks, YAML takes no tabs there"},
		{"an at sign", "it sleeps", "@home", "3:1 E001 found character that cannot start any token; a text that begins with @ needs quotes"},
		{"a glob without quotes", "message:", "exceptions: [{site: */x.php, until: 2030-01-01, reason: known}]\nmessage:", "16:1 E001 did not find expected alphabetic or numeric character; a text that begins with * needs quotes"},
		{"a range without quotes", "message:", "applies_to: {php: >=8.0}\nmessage:", "16:1 E001 found character that cannot start any token; a text that begins with > needs quotes"},
		{"a range without quotes on its own line", "message:", "applies_to:\n  php: >=8.0\nmessage:", "17:1 E001 did not find expected comment or line break; a text that begins with > needs quotes"},
		{"a colon in a text", "it sleeps", "it sleeps: too long", `3:1 E001 mapping values are not allowed in this context; a text with ": " in it needs quotes`},
		{"a key out of line", "      stack:", "     stack:", "9:1 E001 did not find expected '-' indicator; compare its indentation with that of the lines before"},
		{"a frame line out of line", "        gap", "      gap", "11:1 E001 could not find expected ':'; compare its indentation with that of the lines before"},
		{"a no-break space", "title: ", "title:\u00a0", "3:1 E001 could not find expected ':'; there is a no-break space in this line, which is no blank"},
		{"a quote that is not closed", `sleeps"`, "sleeps", "16:1 E001 found unexpected end of stream; a quote is not closed"},
		{"a key without a value", "title: it sleeps", "title:", "3:7 E004 title is empty"},
		{"a text that is a comment", "it sleeps", "#1 of the causes", "3:7 E004 title is empty; a text that begins with # needs quotes"},
		{"a percentage", "0.8", "80%", "8:14 E004 share is a number; for 80% write 0.8"},
		{"a percentage as a number", "0.8", "80", "8:14 E006 share lies above 0 and up to 1; for 80 % write 0.8"},
		{"a number in quotes", "0.8", `"0.8"`, "8:14 E004 share is a number; write it without quotes"},
		{"frame lines that YAML folds", "stack: |", "stack: >", `9:14 E007 "gap" is no attribute; write | before the lines, or YAML makes one of them`},
		{"frame lines without a bar", "stack: |", "stack:", `10:9 E007 "gap" is no attribute; write | before the lines, or YAML makes one of them`},
		{"frame lines as a list", "stack: |\n        leaf clock_nanosleep\n        gap 0-6\n        zif_sleep", "stack: [leaf clock_nanosleep]", "9:14 E004 write a pattern, or several with names: its lines stand below a |, and not in a list"},
		{"a misspelt frame", "leaf clock_nanosleep", "leaf clock_nanoslep", "10:14 W102 name in no known symbol list: clock_nanoslep (did you mean clock_nanosleep?)"},
		{"leaf with a capital", "leaf clock", "Leaf clock", `10:9 E007 "clock_nanosleep" is no attribute (did you mean leaf?)`},
		{"frames that are left out", "gap 0-6", "...", "11:9 E007 for frames that are left out write gap M-N, not ..."},
		{"a frame without a name", "gap 0-6", "??", "11:9 E007 ?? is no name; for frames without one write gap M-N"},
		{"a PHP function as reports print it", "internal sleep", "internal sleep()", "14:9 E007 write the name without (): sleep"},
		{"a method with an arrow", "internal sleep", `internal App\Job->sleep`, `14:9 E007 write App\Job::sleep, as reports do`},
		{"evidence whose name goes on", "message:", "    - expr: proc.cpu > 50.0\nmessage:", "16:13 E008 no evidence is called proc.cpu (did you mean proc.cpu_pct?)"},
		{"one equals sign", "message:", "    - expr: php.sapi = 'cli'\nmessage:", "16:22 E008 Syntax error: token recognition error at: '= '; to compare write =="},
		{"and as a word", "message:", "    - expr: proc.threads > 1 and stack.depth > 3\nmessage:", "16:30 E008 Syntax error: mismatched input 'and' expecting <EOF>; for and write &&"},
		{"a percentage in an expression", "message:", "    - expr: proc.cpu_pct > 50%\nmessage:", "16:31 E008 Syntax error: mismatched input '<EOF>'; write a percentage as a number: 50.0"},
		{"an expression that ends early", "message:", "    - expr: proc.cpu_pct >\nmessage:", "16:27 E008 Syntax error: something is missing at the end"},
		{"a misspelt name in the message", "{{site}}", "{{sit}}", "16:10 E009 {{sit}} is bound nowhere: neither in bind nor by as= (did you mean site?)"},
		{"single braces", "{{site}}", "{site}", "16:10 W107 message shows {site} as it stands here; for its value write {{site}}"},
		{"evidence in the message", "{{site}}", "{{proc.cpu_pct}}", "16:10 E009 {{proc.cpu_pct}} is bound nowhere: neither in bind nor by as=; add bind: {cpu_pct: proc.cpu_pct} and write {{cpu_pct}}"},
		{"a filter that there is not", "{{site}}", "{{site|upper}}", `16:10 E009 no filter is called "upper"; there are bytes, int, secs`},
		{"an exception until some day", "message:", "exceptions: [{site: /x.php, until: tomorrow, reason: known}]\nmessage:", "16:36 E004 until is a date such as 2030-12-31"},
		{"Windows line ends", "\n", "\r\n", ""},
		{"a byte order mark", "schema: phpwhy", "\ufeffschema: phpwhy", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(newcomers, c.from) {
				t.Fatalf("the rule has no %q", c.from)
			}
			n := 1
			if c.from == "\n" {
				n = -1
			}
			if got := lintOne(strings.Replace(newcomers, c.from, c.to, n)); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
	t.Run("UTF-16", func(t *testing.T) {
		b := []byte{0xff, 0xfe}
		for _, u := range utf16.Encode([]rune(newcomers)) {
			b = append(b, byte(u), byte(u>>8))
		}
		if got, want := lintOne(string(b)), "1:1 E001 this is UTF-16; save the file as UTF-8"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

// lintOne loads and lints a rule; that it has no test is not what is asked.
func lintOne(text string) string {
	s, ps := Load(fstest.MapFS{"x.yaml": {Data: []byte(text)}})
	ps = append(ps, s.Lint(LintOptions{Now: time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)})...)
	ps = slices.DeleteFunc(ps, func(p Problem) bool { return p.Code == codeUntested || p.Code == codeNoNearMiss })
	var got []string
	for _, p := range ps {
		got = append(got, fmt.Sprintf("%d:%d %s %s", p.Line, p.Col, p.Code, p.Msg))
	}
	return strings.Join(got, "|")
}
