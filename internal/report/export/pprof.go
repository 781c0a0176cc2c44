package export

import (
	"encoding/binary"
	"io"
	"strconv"

	"github.com/google/pprof/profile"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/report"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/triage"
)

// Pprof writes a gzipped profile.proto with the counts "events", "stops" and
// "samples", and a sample for each stack of each worker, labelled with the
// worker's pid, host, pool, finding (the rule's id) and uri, and with the kind.
//
// Addresses are link-time addresses, so that captures of many processes merge
// and a symbolizer with the binary of that build-id finds them; every mapping
// begins at 0 for that. A frame whose binary is not known has no address.
func Pprof(w io.Writer, m *triage.Model) error {
	b := newPprofBuilder(m)
	for i := range m.Stacks {
		s := &m.Stacks[i]
		at := b.locations(s)
		left := s.Count
		for _, seen := range s.Seen {
			b.sample(at, seen.Kind, seen.N, b.labels(seen.Worker))
			left -= seen.N
		}
		// Over the model's bounds it is no longer known who was seen.
		b.sample(at, "", left, nil)
	}
	if err := b.p.CheckValid(); err != nil {
		return err
	}
	return b.p.Write(w)
}

type pprofBuilder struct {
	m         *triage.Model
	p         *profile.Profile
	binaries  map[int]*profile.Mapping
	modules   map[string]*profile.Mapping // of frames whose binary is not known
	functions map[profile.Function]*profile.Function
	places    map[string]*profile.Location
	key       []byte
}

func newPprofBuilder(m *triage.Model) *pprofBuilder {
	p := &profile.Profile{
		SampleType:        []*profile.ValueType{{Type: "events", Unit: "count"}, {Type: "stops", Unit: "count"}, {Type: "samples", Unit: "count"}},
		DefaultSampleType: "events",
	}
	if !m.From.IsZero() {
		p.TimeNanos = m.From.UnixNano()
		p.DurationNanos = max(0, m.To.Sub(m.From).Nanoseconds())
	}
	if m.Summary != "" {
		p.Comments = []string{report.Visible(m.Summary)}
	}
	b := &pprofBuilder{m: m, p: p, binaries: map[int]*profile.Mapping{}, modules: map[string]*profile.Mapping{},
		functions: map[profile.Function]*profile.Function{}, places: map[string]*profile.Location{}}
	b.mainProgram()
	return b
}

// mainProgram puts the first worker's program before other mappings: pprof
// names the profile after the first one.
func (b *pprofBuilder) mainProgram() {
	for i := range b.m.Binaries {
		if len(b.m.Workers) > 0 && b.m.Binaries[i].Path == b.m.Workers[0].Target.Exe {
			b.mapping(&stack.Frame{Kind: stack.Native}, triage.Place{Binary: i})
			return
		}
	}
}

func (b *pprofBuilder) sample(at []*profile.Location, kind capture.EventKind, n int, labels map[string][]string) {
	if n <= 0 {
		return
	}
	v := []int64{int64(n), 0, 0}
	switch kind {
	case capture.Stop:
		v[1] = int64(n)
	case capture.Sample:
		v[2] = int64(n)
	}
	if labels != nil && kind != "" {
		labels["kind"] = []string{string(kind)}
	}
	b.p.Sample = append(b.p.Sample, &profile.Sample{Location: at, Value: v, Label: labels})
}

// labels are a worker's, in a map of their own.
func (b *pprofBuilder) labels(i int) map[string][]string {
	l := map[string][]string{}
	if i < 0 || i >= len(b.m.Workers) {
		return l
	}
	w := &b.m.Workers[i]
	set := func(k, v string) {
		if v != "" {
			l[k] = []string{report.Visible(v)}
		}
	}
	if w.PID != 0 {
		set("pid", strconv.Itoa(w.PID))
	}
	if w.Host >= 0 && w.Host < len(b.m.Hosts) {
		set("host", b.m.Hosts[w.Host].Name)
	}
	set("pool", w.Pool)
	if len(w.Findings) > 0 {
		set("finding", w.Findings[0].Rule)
	}
	if w.Request != nil {
		set("uri", path(w.Request.URI))
	}
	return l
}

// locations are a stack's, leaf first. Inlined calls share the location of the
// function that they were inlined into, as profile.proto has it.
func (b *pprofBuilder) locations(s *triage.Stack) []*profile.Location {
	out := make([]*profile.Location, 0, len(s.Frames))
	for i := 0; i < len(s.Frames); {
		n := 1
		for s.Frames[i+n-1].Inlined && i+n < len(s.Frames) && s.Frames[i+n].Kind == stack.Native {
			n++
		}
		p := triage.Place{Binary: -1}
		if i+n-1 < len(s.Places) {
			p = s.Places[i+n-1]
		}
		out = append(out, b.location(s.Frames[i:i+n], p))
		i += n
	}
	return out
}

// location is where fs, one frame and those inlined into it, are.
func (b *pprofBuilder) location(fs []stack.Frame, at triage.Place) *profile.Location {
	l := &profile.Location{Mapping: b.mapping(&fs[len(fs)-1], at)}
	if l.Mapping != nil && at.Binary >= 0 && at.Addr > 0 {
		l.Address = at.Addr
		if !at.Exact {
			l.Address-- // a return address may be the next line's, or the next function's
		}
		l.Mapping.Limit = max(l.Mapping.Limit, l.Address+1)
	}
	b.key = b.key[:0]
	if l.Mapping != nil {
		b.key = binary.AppendUvarint(b.key, l.Mapping.ID)
	}
	b.key = binary.AppendUvarint(append(b.key, '@'), l.Address)
	for i := range fs {
		f := b.function(&fs[i])
		l.Line = append(l.Line, profile.Line{Function: f, Line: int64(max(0, fs[i].Line))})
		b.key = binary.AppendUvarint(b.key, f.ID)
		b.key = binary.AppendVarint(b.key, int64(fs[i].Line))
	}
	if known, ok := b.places[string(b.key)]; ok {
		return known
	}
	l.ID = uint64(len(b.p.Location)) + 1
	b.p.Location = append(b.p.Location, l)
	b.places[string(b.key)] = l
	return l
}

// mapping is nil for PHP code, which is in no ELF file.
func (b *pprofBuilder) mapping(f *stack.Frame, at triage.Place) *profile.Mapping {
	switch {
	case f.Kind == stack.PHP:
		return nil
	case at.Binary >= 0 && at.Binary < len(b.m.Binaries):
		known, ok := b.binaries[at.Binary]
		if !ok {
			bin := b.m.Binaries[at.Binary]
			known = b.newMapping(bin.Path, bin.BuildID)
			b.binaries[at.Binary] = known
		}
		return known
	case f.Module == "":
		return nil
	}
	known, ok := b.modules[f.Module]
	if !ok {
		known = b.newMapping(f.Module, "")
		b.modules[f.Module] = known
	}
	return known
}

// newMapping: that there are functions keeps pprof from naming the frames
// anew, by the symbols of whatever has that path on the reader's machine.
func (b *pprofBuilder) newMapping(file, build string) *profile.Mapping {
	m := &profile.Mapping{ID: uint64(len(b.p.Mapping)) + 1, File: report.Visible(file), BuildID: build,
		HasFunctions: true, HasFilenames: true, HasLineNumbers: true, HasInlineFrames: true}
	b.p.Mapping = append(b.p.Mapping, m)
	return m
}

func (b *pprofBuilder) function(f *stack.Frame) *profile.Function {
	k := profile.Function{Name: Name(f), Filename: report.Visible(f.File)}
	if f.Kind == stack.Native {
		k.SystemName = report.Visible(f.Raw)
	} else {
		k.Name += phpMark
		k.SystemName = k.Name
		k.StartLine = int64(f.Defined)
	}
	if known, ok := b.functions[k]; ok {
		return known
	}
	n := k
	n.ID = uint64(len(b.p.Function)) + 1
	b.p.Function = append(b.p.Function, &n)
	b.functions[k] = &n
	return &n
}
