package html

import (
	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/report"
	"github.com/phpwhy/phpwhy/internal/report/export"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/triage"
)

// What a frame is, for its look. The script knows these numbers.
const (
	isPHP = 1 << iota
	isInternal
	isInlined
	isUnknown
)

// flame is the flame graph's data: a tree of frames, root first, in which
// stacks share what they have in common, and who was seen at which node. Flat
// lists of numbers keep a page of a million events small.
type flame struct {
	// Frames are [kind, name, file, line].
	Frames [][4]any `json:"frames"`
	// Node i, counted from 1, shows Frames[Node[i-1]] below node Parent[i-1];
	// parents come first, and 0 is the root.
	Node   []int `json:"node"`
	Parent []int `json:"parent"`
	// Ends are the nodes where stacks end, and Seen, one list for each, holds
	// worker, stops, samples, worker, …; a worker of -1 is not known.
	Ends    []int    `json:"ends"`
	Seen    [][]int  `json:"seen"`
	Workers []string `json:"workers"`
	Member  []int    `json:"member"` // the group of each worker
	Groups  []string `json:"groups"`
	// Dropped counts stacks that the tree had no room for to their leaf.
	Dropped int `json:"dropped"`

	stops, samples bool
}

type edge struct{ parent, frame int }

type flameBuilder struct {
	*flame
	ids   map[[4]any]int
	edges map[edge]int
	ends  map[int]int // node to index of Ends
}

func newFlame(m *triage.Model) *flame {
	b := flameBuilder{&flame{Frames: [][4]any{}, Node: []int{}, Parent: []int{}, Ends: []int{}, Seen: [][]int{}, Workers: []string{}, Member: []int{}, Groups: []string{}},
		map[[4]any]int{}, map[edge]int{}, map[int]int{}}
	for i := range m.Groups {
		b.Groups = append(b.Groups, groupTitle(m, i))
	}
	for i := range m.Workers {
		b.Workers = append(b.Workers, workerLabel(m, i))
		b.Member = append(b.Member, m.Workers[i].Group)
	}
	for i := range m.Stacks { // most frequent first: what has no room is rare
		s := &m.Stacks[i]
		b.seen(b.path(s.Frames), s)
	}
	return b.flame
}

// path is the node where the stack ends, or where the room did.
func (b *flameBuilder) path(fs []stack.Frame) int {
	at := 0
	for i := len(fs) - 1; i >= 0; i-- {
		e := edge{at, b.frame(&fs[i])}
		next, ok := b.edges[e]
		if !ok {
			if len(b.Node) == maxNodes {
				b.Dropped++
				return at
			}
			b.Node = append(b.Node, e.frame)
			b.Parent = append(b.Parent, e.parent)
			next = len(b.Node)
			b.edges[e] = next
		}
		at = next
	}
	return at
}

func (b *flameBuilder) frame(f *stack.Frame) int {
	kind, file, line := 0, f.File, 0
	switch {
	case f.Kind == stack.PHP:
		kind, line = isPHP, max(0, f.Line)
		if f.Internal {
			kind |= isInternal
		}
	case f.Module != "":
		file = f.Module
	}
	if f.Kind == stack.Native && f.Inlined {
		kind |= isInlined
	}
	if f.Unresolved() {
		kind |= isUnknown
	}
	k := [4]any{kind, export.Name(f), report.Visible(file), line}
	i, ok := b.ids[k]
	if !ok {
		i = len(b.Frames)
		b.Frames = append(b.Frames, k)
		b.ids[k] = i
	}
	return i
}

func (b *flameBuilder) seen(node int, s *triage.Stack) {
	i, ok := b.ends[node]
	if !ok {
		i = len(b.Ends)
		b.Ends = append(b.Ends, node)
		b.Seen = append(b.Seen, []int{})
		b.ends[node] = i
	}
	left := s.Count
	for _, x := range s.Seen {
		left -= x.N
		if x.Kind == capture.Stop {
			b.stops = true
			b.Seen[i] = append(b.Seen[i], x.Worker, x.N, 0)
		} else {
			b.samples = true
			b.Seen[i] = append(b.Seen[i], x.Worker, 0, x.N)
		}
	}
	if left > 0 {
		b.samples = true
		b.Seen[i] = append(b.Seen[i], -1, 0, left)
	}
}
