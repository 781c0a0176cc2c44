package html

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/phpwhy/phpwhy/internal/report"
	"github.com/phpwhy/phpwhy/internal/report/export"
	"github.com/phpwhy/phpwhy/internal/series"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/triage"
)

// card is one group of workers.
type card struct {
	Group    int
	Class    string // of the severity, for its colour
	Badge    string // the same in words
	Title    string
	Share    string // 3 of 40 workers
	Site     string
	Message  string
	Evidence []string
	Waits    []string
	Fix      string
	Rule     string
	URIs     []string
	Chart    *chart
	Caption  string
	Frames   []line
	More     int // frames that are left out
	Cut      string
}

// line is a frame of a stack.
type line struct {
	PHP        bool
	Name, Note string
}

// row is one worker in the table. Keys sort where the text would not.
type row struct {
	Index, Group     int
	Host, Pool       string
	PID              int
	Doing, Class     string
	Site, Request    string
	Age, CPU, Memory cell
	Paused, Events   cell
	Ended            bool
}

type cell struct{ Text, Key string }

func title(m *triage.Model) string {
	for i := range m.Groups {
		if m.Groups[i].Kind == report.Cause {
			return "phpwhy: " + groupTitle(m, i)
		}
	}
	return "phpwhy report"
}

func groupTitle(m *triage.Model, g int) string {
	if g < 0 || g >= len(m.Groups) {
		return ""
	}
	t := m.Groups[g].Title
	if t == "" {
		t = m.Groups[g].Rule
	}
	return report.Visible(t)
}

func workerLabel(m *triage.Model, i int) string {
	w := &m.Workers[i]
	s := fmt.Sprintf("pid %d", w.PID)
	if len(m.Hosts) > 1 {
		s += " on " + hostName(m, w.Host)
	}
	return s
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return report.Number(n) + " " + noun + "s"
}

func facts(m *triage.Model) []fact {
	out := []fact{{"workers", report.Number(len(m.Workers))}, {"groups", report.Number(len(m.Groups))},
		{"stacks", fmt.Sprintf("%s of %s", plural(m.Events, "event"), plural(len(m.Stacks), "distinct stack"))}}
	if m.Rounds > 1 {
		out = append(out, fact{"rounds", report.Number(m.Rounds)})
	}
	if !m.From.IsZero() {
		when := m.From.UTC().Format("2006-01-02 15:04:05 UTC")
		if d := m.To.Sub(m.From); d > 0 {
			when += ", for " + d.Round(100*time.Millisecond).String()
		}
		out = append(out, fact{"collected", when})
	}
	if n := len(m.Hosts); n > 1 {
		out = append(out, fact{"hosts", report.Number(n)})
	} else if n == 1 && m.Hosts[0].Name != "" {
		out = append(out, fact{"host", hostName(m, 0)})
	}
	return out
}

// badge is a group's severity in words and as a class.
func badge(g *triage.Group) (text, class string) {
	switch {
	case g.Kind == report.Benign:
		return "healthy", "benign"
	case g.Rule == "":
		return "no rule", "none"
	}
	switch g.Severity {
	case "critical", "high", "medium", "low":
		return g.Severity, g.Severity
	}
	return "info", "info"
}

func site(s triage.Site) string {
	if s.Function == "" && s.File == "" {
		return ""
	}
	f := stack.Frame{Kind: stack.PHP, Class: s.Class, Function: s.Function}
	out := f.QualifiedName()
	if !strings.HasSuffix(out, "}") { // {main}, {closure}
		out += "()"
	}
	if s.File != "" {
		out += " at " + s.File
		if s.Line > 0 {
			out += ":" + strconv.Itoa(s.Line)
		}
	}
	return report.Visible(out)
}

func newCard(m *triage.Model, i int, over map[int]*series.Series) card {
	g := &m.Groups[i]
	c := card{Group: i, Title: groupTitle(m, i), Site: site(g.Site), Message: prose(g.Message), Fix: prose(g.Fix), Rule: report.Visible(g.Rule)}
	c.Badge, c.Class = badge(g)
	c.Share = fmt.Sprintf("%s of %s", report.Number(len(g.Workers)), plural(len(m.Workers), "worker"))
	c.Evidence = evidence(m, g)
	for n, u := range g.URIs {
		if n == maxListed {
			c.URIs = append(c.URIs, fmt.Sprintf("and %s more", report.Number(len(g.URIs)-n)))
			break
		}
		c.URIs = append(c.URIs, fmt.Sprintf("%s × %s", report.Number(u.N), report.Visible(strings.TrimSpace(u.Method+" "+u.URI))))
	}
	for n := range g.Waits {
		if n == maxListed {
			c.Waits = append(c.Waits, fmt.Sprintf("and %s more", report.Number(len(g.Waits)-n)))
			break
		}
		c.Waits = append(c.Waits, wait(m, &g.Waits[n]))
	}
	for _, w := range g.Workers {
		if s := over[w]; s != nil {
			ch := newChart(s, len(m.Hosts) > 1)
			c.Chart = &ch
			for _, t := range chartTitles {
				if t.kind == s.Kind {
					c.Caption = t.title
				}
			}
			c.Evidence = append(c.Evidence, fmt.Sprintf("%s, %s: %s → %s in %s", strings.ToLower(c.Caption[:1])+c.Caption[1:], ch.Name, ch.From, ch.To, ch.Span))
			break
		}
	}
	if len(g.Stacks) > 0 && g.Stacks[0] >= 0 && g.Stacks[0] < len(m.Stacks) {
		c.stack(&m.Stacks[g.Stacks[0]])
	}
	return c
}

// prose is a rule's text, which YAML may have broken into lines.
func prose(s string) string { return report.Visible(strings.Join(strings.Fields(s), " ")) }

func evidence(m *triage.Model, g *triage.Group) []string {
	var out []string
	best, n, of := 0.0, 0, 0
	for _, i := range g.Workers {
		if i < 0 || i >= len(m.Workers) {
			continue
		}
		for _, f := range m.Workers[i].Findings {
			if f.Rule == g.Rule {
				best = max(best, f.Confidence)
			}
		}
		of += m.Workers[i].Stops + m.Workers[i].Samples
	}
	if len(g.Stacks) > 0 && g.Stacks[0] >= 0 && g.Stacks[0] < len(m.Stacks) {
		member := map[int]bool{}
		for _, i := range g.Workers {
			member[i] = true
		}
		for _, s := range m.Stacks[g.Stacks[0]].Seen {
			if member[s.Worker] {
				n += s.N
			}
		}
		if n > 0 && of >= n {
			out = append(out, fmt.Sprintf("the stack below at %s of %s", report.Number(n), plural(of, "event")))
		}
	}
	if best > 0 {
		out = append(out, fmt.Sprintf("confidence %.2f", best))
	}
	if ages := report.Ages(g.Ages); ages != "" {
		out = append(out, "requests have run for "+ages)
	}
	return out
}

// wait says what workers wait for, and who has it.
func wait(m *triage.Model, w *triage.Wait) string {
	s := plural(len(w.Workers), "worker") + " " + m.Waiting(w)
	if len(w.Chain) > 1 {
		var chain []string
		for _, i := range w.Chain {
			if i >= 0 && i < len(m.Workers) {
				chain = append(chain, m.PID(m.Workers[i].Host, m.Workers[i].PID))
			}
		}
		s += "; who waits for whom: " + strings.Join(chain, " → ")
	}
	if w.Deadlock {
		s += " (a deadlock)"
	}
	return report.Visible(s)
}

func (c *card) stack(s *triage.Stack) {
	for i := range s.Frames {
		if i == maxStackIn {
			c.More = len(s.Frames) - i
			break
		}
		f := &s.Frames[i]
		l := line{PHP: f.Kind == stack.PHP, Name: export.Name(f)}
		switch {
		case f.File != "" && f.Line > 0:
			l.Note = fmt.Sprintf("%s:%d", f.File, f.Line)
		case f.File != "":
			l.Note = f.File
		case f.Internal:
			l.Note = "internal"
		case !l.PHP && f.Function != "":
			l.Note = f.Module
		}
		l.Note = report.Visible(l.Note)
		c.Frames = append(c.Frames, l)
	}
	switch {
	case s.Error != "":
		c.Cut = report.Visible(s.Error)
	case s.End == stack.Truncated:
		c.Cut = "the stack is cut off here"
	}
}

func newRow(m *triage.Model, i int) row {
	w := &m.Workers[i]
	r := row{Index: i, Group: w.Group, Host: hostName(m, w.Host), Pool: report.Visible(w.Pool), PID: w.PID,
		Doing: groupTitle(m, w.Group), Site: site(w.Site), Ended: w.Ended, Class: "none"}
	if w.Group >= 0 && w.Group < len(m.Groups) {
		_, r.Class = badge(&m.Groups[w.Group])
	}
	if q := w.Request; q != nil {
		uri, _, _ := strings.Cut(q.URI, "?") // queries hold secrets, and pages are passed on
		r.Request = report.Visible(strings.TrimSpace(q.Method + " " + uri))
		if age, known := q.Age(); known {
			r.Age = cell{report.Duration(age * 1000), strconv.FormatInt(age, 10)}
		}
	}
	switch v := w.Facts["proc.cpu_pct"].(type) {
	case float64:
		r.CPU = cell{fmt.Sprintf("%.0f %%", v), fmt.Sprint(v)}
	case int64:
		r.CPU = cell{fmt.Sprintf("%d %%", v), fmt.Sprint(v)}
	}
	if v, ok := w.Facts["php.memory_usage"].(int64); ok && v >= 0 {
		r.Memory = cell{report.Size(uint64(v)), strconv.FormatInt(v, 10)}
	}
	if w.Paused > 0 {
		r.Paused = cell{report.Duration(w.Paused), strconv.FormatInt(w.Paused, 10)}
	}
	n := w.Stops + w.Samples
	r.Events = cell{report.Number(n), strconv.Itoa(n)}
	return r
}
