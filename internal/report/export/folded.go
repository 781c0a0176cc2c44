package export

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/triage"
)

// phpMark ends the frames of PHP code.
const phpMark = " [php]"

// Folded writes one line for each stack, as flamegraph.pl reads them: frames
// from root to leaf with ";" between them, a space, the number of events. PHP
// frames carry file and line and end in " [php]". A stack without frames is
// "[no frames]".
func Folded(w io.Writer, m *triage.Model) error {
	b := bufio.NewWriter(w)
	for i := range m.Stacks {
		s := &m.Stacks[i]
		if s.Count == 0 {
			continue // flamegraph.pl would draw it
		}
		b.WriteString(foldedLine(s.Frames))
		b.WriteByte(' ')
		b.WriteString(strconv.Itoa(s.Count))
		b.WriteByte('\n')
	}
	return b.Flush()
}

func foldedLine(fs []stack.Frame) string {
	if len(fs) == 0 {
		return "[no frames]"
	}
	var b strings.Builder
	for i := len(fs) - 1; i >= 0; i-- {
		b.WriteString(foldedFrame(&fs[i]))
		if i > 0 {
			b.WriteByte(';')
		}
	}
	return b.String()
}

func foldedFrame(f *stack.Frame) string {
	name := Name(f)
	if f.Kind == stack.PHP {
		name += place(f) + phpMark
	}
	return strings.ReplaceAll(name, ";", `\x3b`)
}

// FoldedDiff writes a line for each stack of either model, with its events in
// a and in b, as difffolded.pl does: flamegraph.pl colours by the difference.
func FoldedDiff(w io.Writer, a, b *triage.Model) error {
	var lines []string
	counts := map[string]*[2]int{}
	for side, m := range []*triage.Model{a, b} {
		for i := range m.Stacks {
			l := foldedLine(m.Stacks[i].Frames)
			n := counts[l]
			if n == nil {
				n = new([2]int)
				counts[l] = n
				lines = append(lines, l)
			}
			n[side] += m.Stacks[i].Count
		}
	}
	out := bufio.NewWriter(w)
	for _, l := range lines {
		if n := counts[l]; n[0]+n[1] > 0 {
			fmt.Fprintf(out, "%s %d %d\n", l, n[0], n[1])
		}
	}
	return out.Flush()
}
