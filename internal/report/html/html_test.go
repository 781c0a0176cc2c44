package html

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/series"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/triage"
)

// evil ends whatever it is put into.
const evil = "\x1b[31m\u202e</script></style></title>--><img src=x onerror=alert(1)>'\"`{{.}}${1}]]>\u2028"

// native and php are frames, leaf first in a stack.
func native(name string) stack.Frame {
	return stack.Frame{Kind: stack.Native, Function: name, Module: "php"}
}

func php(name string, line int) stack.Frame {
	return stack.Frame{Kind: stack.PHP, Function: name, File: "/srv/app/x.php", Line: line}
}

// shop is a report on three workers: two append to a string, one sleeps. Every
// text that a target chooses is s.
func shop(s string) *triage.Model {
	leak := []stack.Frame{native("mremap"), {Kind: stack.Native, Function: "zend_string_extend", Inlined: true, Module: "php"}, native("concat_function"),
		{Kind: stack.Native, Module: "php" + s, Offset: 0x1234}, native("execute_ex"), php("build"+s, 7), php("{main}", 20), native("main")}
	sleep := []stack.Frame{native("clock_nanosleep"), native("zif_sleep"), {Kind: stack.PHP, Function: "sleep", Internal: true}, native("execute_ex"), php("wait", 9), php("{main}", 21), native("main")}
	site := triage.Site{Function: "build" + s, File: "/srv/app/x.php", Line: 7}
	request := &capture.Request{Method: "GET" + s, URI: "/report" + s + "?token=secret", Script: s, AgeMS: new(int64(90_000))}
	worker := func(pid int, st int) triage.Worker {
		return triage.Worker{PID: pid, Pool: "www" + s, Group: st, Stack: st, Looks: 3, Stops: 5, Samples: 5 * (1 - st) / 2, Site: site, Request: request, Paused: 130,
			Findings: []triage.WorkerFinding{{Rule: "mem.string-concat", Confidence: 0.95}},
			Facts:    map[string]any{"php.memory_usage": int64(pid) << 20, "proc.cpu_pct": float64(pid)}}
	}
	return &triage.Model{
		Summary: "2 of 3 workers: a string is appended to without end" + s, Rounds: 3, Events: 17,
		From: time.Unix(1_790_000_000, 0), To: time.Unix(1_790_000_003, 0),
		Hosts: []triage.Host{{Name: "web1" + s}, {Name: "web2"}}, Binaries: []triage.Binary{{Path: "/usr/bin/php" + s, BuildID: "c0ffee"}},
		Sources: []triage.Source{{Name: "a.zst" + s, Truncated: true}}, Notes: []string{"note" + s},
		Failures: []triage.Failure{{PID: 99, Error: "gone" + s}},
		Workers:  []triage.Worker{worker(101, 0), worker(20, 0), worker(3, 1)},
		Groups: []triage.Group{
			{Title: "a string is appended to without end" + s, Rule: "mem.string-concat", Kind: "cause", Severity: "high", Message: "message" + s, Fix: "fix" + s, Site: site,
				Workers: []int{0, 1}, Stacks: []int{0}, URIs: []triage.URICount{{Method: "GET", URI: "/report" + s, N: 2}}, Ages: &triage.Ages{Min: 1, Median: 2, Max: 3},
				Waits: []triage.Wait{{Kind: "flock", What: "/tmp/lock" + s, HolderPID: 5, HolderWho: "cron" + s, HolderSite: site, HolderDoing: "sleep", Chain: []int{0, 1}, Deadlock: true, Workers: []int{0}}}},
			{Title: "sleeps" + s, Workers: []int{2}, Stacks: []int{1}},
		},
		Stacks: []triage.Stack{
			{Count: 12, Frames: leak, End: stack.Truncated, Error: "cut" + s, Seen: []triage.Seen{{Worker: 0, Kind: capture.Stop, N: 7}, {Worker: 1, Kind: capture.Stop, N: 3}, {Worker: 1, Kind: capture.Sample, N: 2}}},
			{Count: 5, Frames: sleep, End: stack.Root, Seen: []triage.Seen{{Worker: 2, Kind: capture.Sample, N: 5}}},
		},
		Timeline: []triage.Tick{{Round: 1, Groups: []int{1, 2}}, {Round: 2, Groups: []int{2, 1}}, {Round: 3, Groups: []int{2, 1}}},
	}
}

func growth(s string) []series.Series {
	g := series.Series{Worker: series.Worker{Host: "web1" + s, PID: 101}, Kind: series.Block, Seen: 300}
	for i := range 100 {
		g.Points = append(g.Points, series.Point{At: time.Duration(i) * time.Millisecond, Value: float64(1<<20 + i*4096)})
	}
	return []series.Series{g}
}

func written(t *testing.T, m *triage.Model, over []series.Series) string {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, m, over); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// block is what stands between the first open and the next end.
func block(t *testing.T, page, open, end string) string {
	t.Helper()
	_, rest, ok := strings.Cut(page, open)
	text, _, ended := strings.Cut(rest, end)
	if !ok || !ended {
		t.Fatalf("no %s…%s in the page", open, end)
	}
	return text
}

func TestTextFromTargetsStaysText(t *testing.T) {
	plain, hostile := written(t, shop(""), growth("")), written(t, shop(evil), growth(evil))
	tags := regexp.MustCompile(`<[a-zA-Z/!][^>]*`)
	shape := func(page string) string {
		// Attributes that carry text differ; the elements must not.
		page = strings.Replace(page, script, "", 1)
		page = strings.Replace(page, style, "", 1)
		var out []string
		for _, tag := range tags.FindAllString(page, -1) {
			name, _, _ := strings.Cut(tag, " ")
			out = append(out, name)
		}
		return strings.Join(out, "\n")
	}
	if a, b := shape(plain), shape(hostile); a != b {
		t.Errorf("names changed the page's elements:\n%s\n---\n%s", a, b)
	}
	if strings.ContainsAny(hostile, "\x1b\u202e\u2028") {
		t.Error("a control byte is in the page")
	}
	if n := strings.Count(hostile, "</script>"); n != 2 {
		t.Errorf("%d script elements end, want 2", n)
	}
	if strings.Contains(plain+hostile, "secret") {
		t.Error("a request's query is in the page")
	}
	var data struct{ Frames [][]any }
	if err := json.Unmarshal([]byte(block(t, hostile, `type="application/json">`, "</script>")), &data); err != nil {
		t.Fatal(err)
	}
}

func TestPolicyPermitsThePagesOwnCodeAlone(t *testing.T) {
	page := written(t, shop(evil), growth(evil))
	policy := strings.NewReplacer("&#39;", "'", "&#43;", "+").Replace(block(t, page, `http-equiv="Content-Security-Policy" content="`, `"`))
	for _, want := range []string{"default-src 'none'", "style-src " + source(block(t, page, "<style>", "</style>")),
		"script-src " + source(block(t, page, "<script>", "</script>")), "base-uri 'none'", "form-action 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("policy %s lacks %s", policy, want)
		}
	}
	if strings.Contains(policy, "unsafe") || strings.Contains(policy, "http") {
		t.Errorf("policy %s permits more", policy)
	}
}

func TestPageAsksNoNetwork(t *testing.T) {
	page := written(t, shop(""), growth(""))
	for _, m := range regexp.MustCompile(`(?:src|href|action|poster|srcset|data)\s*=\s*"([^"]*)"`).FindAllStringSubmatch(page, -1) {
		if !strings.HasPrefix(m[1], "#") {
			t.Errorf("the page refers to %s", m[0])
		}
	}
	for _, bad := range []string{"url(", "@import", "fetch(", "XMLHttpRequest", "WebSocket", "import(", "//cdn", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("} {
		if strings.Contains(page, bad) {
			t.Errorf("%q is in the page", bad)
		}
	}
}

func TestFindingsSayCausePlaceEvidenceAndFix(t *testing.T) {
	page := written(t, shop(""), growth(""))
	cards := block(t, page, `<section id="findings"`, "</section>")
	for _, want := range []string{"high", "a string is appended to without end", "2 of 3 workers", "build() at /srv/app/x.php:7", "message", "confidence 0.95",
		"the stack below at 12 of 14 events", "1.0 MiB → 1.4 MiB in 99.0 ms", "in a circle: pid web1:5, which has it, waits for it in turn", "a deadlock", "2 × GET /report", "fix",
		"requests have run for 1.0 ms to 3.0 ms", "no rule"} {
		if !strings.Contains(cards, want) {
			t.Errorf("no %q in the findings", want)
		}
	}
	if a, b := strings.Index(cards, "a string is"), strings.Index(cards, "sleeps"); a > b {
		t.Error("the largest cause does not come first")
	}
}

// TestChartsOfWhatDoesNotChangeAreLeftOut: a line at "0 %" between "0 %" and
// "0 %" looks like a worker that is busy all the time.
func TestChartsOfWhatDoesNotChangeAreLeftOut(t *testing.T) {
	over := func(pid int, kind series.Kind, values ...float64) series.Series {
		s := series.Series{Worker: series.Worker{Host: "web1", PID: pid}, Kind: kind, Seen: len(values)}
		for i, v := range values {
			s.Points = append(s.Points, series.Point{At: time.Duration(i) * time.Second, Value: v})
		}
		return s
	}
	m := shop("")
	m.Timeline = []triage.Tick{{Round: 1, Groups: []int{2, 1}}, {Round: 2, Groups: []int{2, 1}}, {Round: 3, Groups: []int{2, 0}}}
	sets := chartSets(m, []series.Series{
		over(101, series.CPU, 0.1, 0.4, 0.2), over(20, series.CPU, 0, 3, 1), over(3, series.CPU, 40, 97, 98),
		over(101, series.Memory, 2<<20, 2<<20+100, 2<<20), over(20, series.Depth, 1, 1, 1),
	})
	type drawn struct {
		title, name, low, high string
		flat                   int
	}
	var got []drawn
	for _, set := range sets {
		for _, c := range set.Charts {
			got = append(got, drawn{set.Title, c.Name, c.Low, c.High, set.Flat})
		}
	}
	want := []drawn{
		{"Processor time", "pid 20 on web1", "0 %", "10 %", 1}, {"Processor time", "pid 3 on web1", "0 %", "98 %", 1},
		{"Workers in each group, round by round", "sleeps", "0", "1", 1},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if page := written(t, m, []series.Series{over(3, series.Memory, 2<<20, 2<<20)}); strings.Contains(page, "2.0 MiB</b> →") {
		t.Error("a memory that does not change is drawn")
	}
}

// flameOf reads the data block back.
func flameOf(t *testing.T, page string) flame {
	t.Helper()
	var f flame
	if err := json.Unmarshal([]byte(block(t, page, `type="application/json">`, "</script>")), &f); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFlameDataIsATreeThatAddsUp(t *testing.T) {
	f := flameOf(t, written(t, shop(""), nil))
	if len(f.Node) != len(f.Parent) || len(f.Ends) != len(f.Seen) {
		t.Fatalf("%d nodes, %d parents, %d ends, %d seen", len(f.Node), len(f.Parent), len(f.Ends), len(f.Seen))
	}
	depth := make([]int, len(f.Node)+1)
	for i, p := range f.Parent {
		if p < 0 || p > i {
			t.Fatalf("node %d is below %d, which comes later", i+1, p)
		}
		depth[i+1] = depth[p] + 1
	}
	// Both stacks begin with main.
	if len(f.Node) != 8+7-1 {
		t.Errorf("%d nodes: the stacks should share their root", len(f.Node))
	}
	got := map[int][2]int{} // depth to stops and samples
	for i, e := range f.Ends {
		n := got[depth[e]]
		for k := 0; k < len(f.Seen[i]); k += 3 {
			n[0] += f.Seen[i][k+1]
			n[1] += f.Seen[i][k+2]
		}
		got[depth[e]] = n
	}
	if got[8] != [2]int{10, 2} || got[7] != [2]int{0, 5} {
		t.Errorf("stops and samples by depth: %v", got)
	}
}

func TestALargeReportStaysAPage(t *testing.T) {
	m := &triage.Model{Hosts: []triage.Host{{Name: "web1"}}, Groups: []triage.Group{{Title: "busy", Stacks: []int{0}}}}
	for i := range 6000 {
		m.Workers = append(m.Workers, triage.Worker{PID: i + 1})
		m.Groups[0].Workers = append(m.Groups[0].Workers, i)
	}
	for i := range 50_000 { // 1,000,000 events
		fs := []stack.Frame{native(fmt.Sprintf("leaf%d", i%300)), native("execute_ex")}
		for d := range 30 {
			fs = append(fs, php(fmt.Sprintf("f%d_%d", d, i>>(uint(d)/2)), d))
		}
		m.Stacks = append(m.Stacks, triage.Stack{Count: 20, Frames: fs, Seen: []triage.Seen{{Worker: i % 6000, Kind: capture.Sample, N: 20}}})
		m.Events += 20
	}
	page := written(t, m, nil)
	t.Logf("%d bytes", len(page))
	if len(page) > 16<<20 {
		t.Errorf("the page has %d bytes", len(page))
	}
	f := flameOf(t, page)
	sum := 0
	for _, s := range f.Seen {
		for k := 0; k < len(s); k += 3 {
			sum += s[k+1] + s[k+2]
		}
	}
	if len(f.Node) > maxNodes || f.Dropped == 0 || sum != m.Events {
		t.Errorf("%d nodes, %d stacks dropped, %d events of %d", len(f.Node), f.Dropped, sum, m.Events)
	}
	if !strings.Contains(page, "1000 more workers are not on this page") {
		t.Error("the page does not say that workers are left out")
	}
}

func TestAnEmptyReportIsAPage(t *testing.T) {
	page := written(t, &triage.Model{}, nil)
	if !strings.Contains(page, "No worker was looked at.") || !strings.HasSuffix(strings.TrimSpace(page), "</html>") {
		t.Errorf("got %s", page[len(page)-200:])
	}
}

func TestIndicesOutOfRangeAreNoPanic(t *testing.T) {
	m := shop("")
	m.Groups[0].Stacks, m.Groups[0].Workers = []int{99}, []int{-1, 99}
	m.Groups[0].Waits[0].Chain = []int{77, -2}
	m.Workers[0].Group, m.Workers[0].Host, m.Workers[1].Group = 42, -1, -1
	m.Timeline[0].Groups = []int{1, 2, 3, 4}
	m.Failures[0].Host = 12
	written(t, m, growth(""))
}
