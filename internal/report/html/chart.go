package html

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/phpwhy/phpwhy/internal/report"
	"github.com/phpwhy/phpwhy/internal/series"
	"github.com/phpwhy/phpwhy/internal/triage"
)

// The drawing's own units; the page scales them.
const (
	chartWidth  = 300
	chartHeight = 80
)

// chart is one small line chart.
type chart struct {
	Name          string // whose
	Line, Area    string // SVG path data
	Low, High     string // the ends of the scale
	From, To      string // the first and the last value
	Span          string // how long
	Width, Height int
	Text          string // all of it for those who can't see it
}

// chartSet are charts of one kind.
type chartSet struct {
	Title, Note string
	Charts      []chart
	More        int
	Flat        int // without change: a line says no more than its number
}

var chartTitles = []struct {
	kind        series.Kind
	title, note string
}{
	{series.Block, "Size of the block that grows", "as asked for by mremap and mmap; for PHP 7.0 to 7.2 what was added while watched"},
	{series.Memory, "Memory that PHP has from the system", ""},
	{series.Depth, "PHP frames on the stack", ""},
	{series.CPU, "Processor time", "of one processor"},
}

func chartSets(m *triage.Model, over []series.Series) []chartSet {
	var out []chartSet
	for _, t := range chartTitles {
		set := chartSet{Title: t.title, Note: t.note}
		for i := range over {
			if over[i].Kind != t.kind {
				continue
			}
			if flat(&over[i]) {
				set.Flat++
				continue
			}
			if len(set.Charts) == maxCharts {
				set.More++
				continue
			}
			set.Charts = append(set.Charts, newChart(&over[i], len(m.Hosts) > 1))
		}
		if len(set.Charts) > 0 {
			out = append(out, set)
		}
	}
	if set := roundCharts(m); len(set.Charts) > 0 {
		out = append(out, set)
	}
	return out
}

// byWorker finds the most telling series of each worker.
func byWorker(m *triage.Model, over []series.Series) map[int]*series.Series {
	type process struct {
		host, boot string
		pid        int
		start      uint64
	}
	index := map[process]*series.Series{}
	for i := range over {
		s := &over[i]
		p := process{s.Worker.Host, s.Worker.Boot, s.Worker.PID, s.Worker.Start}
		if s.Kind != series.CPU && s.Change() != 0 && !flat(s) && index[p] == nil {
			index[p] = s
		}
	}
	out := map[int]*series.Series{}
	for i := range m.Workers {
		w := &m.Workers[i]
		p := process{pid: w.PID, start: w.Start}
		if w.Host >= 0 && w.Host < len(m.Hosts) {
			p.host, p.boot = m.Hosts[w.Host].Name, m.Hosts[w.Host].BootID
		}
		if s := index[p]; s != nil {
			out[i] = s
		}
	}
	return out
}

// flat reports whether all of a series reads the same.
func flat(s *series.Series) bool {
	by := func(a, b series.Point) int { return cmp.Compare(a.Value, b.Value) }
	return amount(s.Kind, slices.MinFunc(s.Points, by).Value) == amount(s.Kind, slices.MaxFunc(s.Points, by).Value)
}

// leastCPU is the least that the scale of processor time reaches, in per cent: an
// idle worker's line lies on the ground.
const leastCPU = 10

func newChart(s *series.Series, hosts bool) chart {
	name := fmt.Sprintf("pid %d", s.Worker.PID)
	if hosts {
		name += " on " + report.Visible(s.Worker.Host)
	}
	first, last := s.Points[0], s.Points[len(s.Points)-1]
	xs, ys := make([]float64, len(s.Points)), make([]float64, len(s.Points))
	for i, p := range s.Points {
		xs[i], ys[i] = (p.At - first.At).Seconds(), p.Value
	}
	least := 0.0
	if s.Kind == series.CPU {
		least = leastCPU
	}
	c := draw(xs, ys, s.Kind == series.Depth || s.Kind == series.CPU, least, func(v float64) string { return amount(s.Kind, v) })
	c.Name = name
	c.Span = report.Duration((last.At - first.At).Microseconds())
	c.Text = fmt.Sprintf("%s: from %s to %s in %s, %s measurements", name, c.From, c.To, c.Span, report.Number(s.Seen))
	return c
}

// draw scales points to the drawing. The scale begins at 0 where that is asked
// for or does not flatten the line, and ends at least at a given value.
func draw(xs, ys []float64, zero bool, least float64, say func(float64) string) chart {
	low, high := slices.Min(ys), max(least, slices.Max(ys))
	if zero || low < high/2 || low == high {
		low = min(0, low)
	}
	width, height := xs[len(xs)-1]-xs[0], high-low
	if width <= 0 {
		width = 1
	}
	if height <= 0 {
		height = 1
	}
	var b strings.Builder
	for i := range xs {
		x := (xs[i] - xs[0]) / width * chartWidth
		y := chartHeight - (ys[i]-low)/height*chartHeight
		fmt.Fprintf(&b, "%c%.1f %.1f", "ML"[min(i, 1)], x, y)
	}
	line := b.String()
	return chart{Line: line, Area: fmt.Sprintf("%sL%d %dL0 %dZ", line, chartWidth, chartHeight, chartHeight), Width: chartWidth, Height: chartHeight,
		Low: say(low), High: say(high), From: say(ys[0]), To: say(ys[len(ys)-1])}
}

func amount(k series.Kind, v float64) string {
	switch k {
	case series.Block, series.Memory:
		return report.Size(uint64(max(0, v)))
	case series.CPU:
		return fmt.Sprintf("%.0f %%", v)
	}
	return report.Number(int(v))
}

// roundCharts say how many workers each group had, round by round.
func roundCharts(m *triage.Model) chartSet {
	set := chartSet{Title: "Workers in each group, round by round"}
	rounds := map[int][]int{}
	for i := range m.Timeline {
		t := &m.Timeline[i]
		sum := rounds[t.Round]
		if sum == nil {
			sum = make([]int, len(m.Groups))
			rounds[t.Round] = sum
		}
		for g, n := range t.Groups {
			if g < len(sum) {
				sum[g] += n
			}
		}
	}
	if len(rounds) < 3 {
		return set
	}
	order := make([]int, 0, len(rounds))
	for r := range rounds {
		order = append(order, r)
	}
	slices.SortFunc(order, cmp.Compare)
	for g := range m.Groups {
		same := func(r int) bool { return rounds[r][g] == rounds[order[0]][g] }
		if !slices.ContainsFunc(order, func(r int) bool { return !same(r) }) {
			set.Flat++
			continue
		}
		if len(set.Charts) == maxCharts {
			set.More++
			continue
		}
		xs, ys := make([]float64, len(order)), make([]float64, len(order))
		for i, r := range order {
			xs[i], ys[i] = float64(r), float64(rounds[r][g])
		}
		c := draw(xs, ys, true, 0, func(v float64) string { return report.Number(int(v)) })
		c.Name = groupTitle(m, g)
		c.Span = report.Number(len(order)) + " rounds"
		c.Text = fmt.Sprintf("%s: from %s to %s workers in %s", c.Name, c.From, c.To, c.Span)
		set.Charts = append(set.Charts, c)
	}
	return set
}
