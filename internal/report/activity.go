package report

import (
	"fmt"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/stack"
)

const (
	// busyPct is from where on a worker computes rather than waits.
	busyPct = 50.0
	// idlePct is below what a worker does next to nothing.
	idlePct = 10.0
	// shortPct is from where on the lack of a processor is worth a word.
	shortPct = 20.0
	// oftenest is the share of what was seen that a function needs to be named.
	oftenest = 0.5
)

// activity says what a worker does that no rule explains: whether it computes or
// waits, in which function of PHP, and for whom. It is empty when that is not known.
func activity(r *Report) string {
	call, seen := called(r.Stacks)
	runnable, known := r.Facts["proc.runnable_pct"].(float64)
	if known && runnable >= busyPct {
		s := "it computes"
		if call != "" {
			s += ", in " + call + "()" + seen
		}
		if cpu, ok := r.Facts["proc.cpu_pct"].(float64); ok {
			s += fmt.Sprintf("; it used %.0f %% of a processor", cpu)
			if runnable-cpu >= shortPct {
				s += fmt.Sprintf(" and stood in line for one %.0f %% of the time", runnable-cpu)
			}
		}
		return s
	}
	on := text(r.Facts["wait.on"])
	if on == "" && call != "" && known && runnable < idlePct {
		return "it waits in " + call + "()" + seen
	}
	if on == "" || text(r.Facts["proc.state"]) == "R" {
		return ""
	}
	if call == "" {
		call = text(r.Facts["wait.syscall"])
	}
	s := "it waits in " + call + "()"
	if on != text(r.Facts["fd.kind"]) { // a kind alone, such as a pipe to oneself, is nobody
		s += " for " + on
	}
	if quiet, ok := r.Facts["fd.quiet_s"].(float64); ok {
		s += fmt.Sprintf("; the connection has carried nothing for %.1f s", quiet)
	}
	return s
}

// called is the internal function that most of what was seen is in, and how much of
// it, "" when there is none. Samples say more than stops, which calls of memory chose.
func called(stacks []Stack) (call, seen string) {
	for _, kind := range []capture.EventKind{capture.Sample, capture.Stop} {
		all, most := 0, 0
		per := make(map[string]int)
		for i := range stacks {
			if s := &stacks[i]; s.Kind == kind {
				all += s.Count
				if name := innermost(s.Frames); name != "" {
					if per[name] += s.Count; per[name] > most {
						call, most = name, per[name]
					}
				}
			}
		}
		switch {
		case all == 0:
			continue
		case most == 0 || float64(most) < oftenest*float64(all):
			return "", ""
		case all == 1:
			return call, ""
		}
		return call, fmt.Sprintf(" in %s of %s", number(most), count(all, string(kind)))
	}
	return "", ""
}

// innermost is the internal function of PHP that a stack is in, "" in PHP code.
func innermost(fs []stack.Frame) string {
	for i := range fs {
		if fs[i].Kind == stack.PHP {
			if fs[i].Internal {
				return fs[i].QualifiedName()
			}
			return ""
		}
	}
	return ""
}
