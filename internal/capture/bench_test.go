package capture

import (
	"bytes"
	"io"
	"testing"
)

// manyEvents is 20,000 stops over 200 stacks, a few seconds of a busy worker.
func manyEvents() *Capture {
	c := sampleCapture()
	c.Stacks = nil
	for i := range 200 {
		c.Stacks = append(c.Stacks, concatStack(i))
	}
	e := c.Events[0]
	c.Events = nil
	for i := range 20000 {
		e.Stack = i % len(c.Stacks)
		c.Events = append(c.Events, e)
	}
	return c
}

func BenchmarkWrite(b *testing.B) {
	c := manyEvents()
	for b.Loop() {
		if err := Write(io.Discard, c); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(c.Events))*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

func BenchmarkRead(b *testing.B) {
	c := manyEvents()
	data := written(b, c)
	for b.Loop() {
		if _, err := Read(bytes.NewReader(data)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(c.Events))*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkInternKnown is what each stop of a hot loop costs.
func BenchmarkInternKnown(b *testing.B) {
	var in Interner
	s := concatStack(6)
	in.Add(s)
	b.ReportAllocs()
	for b.Loop() {
		if _, added := in.Add(s); added {
			b.Fatal("added twice")
		}
	}
}
