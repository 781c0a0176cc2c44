package export

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/phpwhy/phpwhy/internal/report"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/triage"
)

// maxProfiles bounds the profiles of single workers in one speedscope file.
const maxProfiles = 100

// The shape of speedscope's file format; see file-format-spec.ts in its sources.
type speedscope struct {
	Schema   string         `json:"$schema"`
	Shared   speedShared    `json:"shared"`
	Profiles []speedProfile `json:"profiles"`
	Name     string         `json:"name"`
	Active   int            `json:"activeProfileIndex"`
	Exporter string         `json:"exporter"`
}

type speedShared struct {
	Frames []speedFrame `json:"frames"`
}

type speedFrame struct {
	Name string `json:"name"`
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
}

type speedProfile struct {
	Type    string  `json:"type"`
	Name    string  `json:"name"`
	Unit    string  `json:"unit"`
	Start   int     `json:"startValue"`
	End     int     `json:"endValue"`
	Samples [][]int `json:"samples"` // root first
	Weights []int   `json:"weights"`
}

func (p *speedProfile) add(frames []int, n int) {
	p.Samples = append(p.Samples, frames)
	p.Weights = append(p.Weights, n)
	p.End += n
}

// Speedscope writes one profile of everything and, when there are several
// workers, one for each of the first hundred.
func Speedscope(w io.Writer, m *triage.Model) error {
	var in speedInterner
	all := newSpeedProfile("all workers")
	workers := make([]*speedProfile, min(len(m.Workers), maxProfiles))
	for i := range workers {
		p := newSpeedProfile(workerName(m, i))
		workers[i] = &p
	}
	for i := range m.Stacks {
		s := &m.Stacks[i]
		frames := in.stack(s.Frames)
		all.add(frames, s.Count)
		per := map[int]int{}
		for _, seen := range s.Seen {
			per[seen.Worker] += seen.N
		}
		for k, p := range workers {
			if per[k] > 0 {
				p.add(frames, per[k])
			}
		}
	}
	f := speedscope{Schema: "https://www.speedscope.app/file-format-schema.json", Name: "phpwhy", Exporter: "phpwhy",
		Shared: speedShared{Frames: append([]speedFrame{}, in.frames...)}, Profiles: []speedProfile{all}}
	if len(workers) > 1 {
		for _, p := range workers {
			f.Profiles = append(f.Profiles, *p)
		}
	}
	return json.NewEncoder(w).Encode(f)
}

func newSpeedProfile(name string) speedProfile {
	return speedProfile{Type: "sampled", Name: name, Unit: "none", Samples: [][]int{}, Weights: []int{}}
}

// workerName tells a worker from the others, and what it does.
func workerName(m *triage.Model, i int) string {
	w := &m.Workers[i]
	name := fmt.Sprintf("pid %d", w.PID)
	if len(m.Hosts) > 1 && w.Host >= 0 && w.Host < len(m.Hosts) {
		name += " on " + m.Hosts[w.Host].Name
	}
	if g := w.Group; g >= 0 && g < len(m.Groups) && m.Groups[g].Title != "" {
		name += ": " + m.Groups[g].Title
	}
	return report.Visible(name)
}

// speedInterner numbers frames that speedscope shows alike.
type speedInterner struct {
	frames []speedFrame
	ids    map[speedFrame]int
}

func (in *speedInterner) stack(fs []stack.Frame) []int {
	out := make([]int, 0, len(fs))
	for i := len(fs) - 1; i >= 0; i-- {
		out = append(out, in.id(&fs[i]))
	}
	return out
}

// id: speedscope takes frames of one name, file and line for one.
func (in *speedInterner) id(f *stack.Frame) int {
	k := speedFrame{Name: Name(f), File: report.Visible(f.File)}
	if f.Kind == stack.PHP {
		k.Name += phpMark
		k.Line = max(0, f.Line)
	}
	if in.ids == nil {
		in.ids = map[speedFrame]int{}
	}
	i, ok := in.ids[k]
	if !ok {
		i = len(in.frames)
		in.frames = append(in.frames, k)
		in.ids[k] = i
	}
	return i
}
