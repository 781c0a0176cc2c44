package export

import (
	"bufio"
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
