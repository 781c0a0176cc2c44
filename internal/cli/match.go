package cli

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/phpwhy/phpwhy/internal/triage"
)

func newMatch(s streams) *cobra.Command {
	var j judged
	var pid int
	cmd := &cobra.Command{
		Use:   "match FILE...|-",
		Short: "Run the rules over captures, core files, or stacks from gdb, eu-stack or strace -k",
		Long: `match says what the rules make of what was recorded elsewhere: captures of
"phpwhy attach --capture" and "phpwhy collect -o", core files ("phpwhy core" shows those, and finds their
programs elsewhere), or text that holds stacks as gdb (bt), eu-stack or strace -k
print them. Pasted stacks have no PHP frames and no measurements, so
many rules are undetermined on them.

A capture of collect has many workers. As text there is a report for the first of those that do the same, with the pids of
all; with --format json there is one for each, a line each. --pid chooses one. "phpwhy report" compares them.`,
		Example: "  phpwhy match hang.jsonl.zst\n  gdb -p 4242 -batch -ex bt | phpwhy match -",
		RunE:    func(_ *cobra.Command, args []string) error { return match(s, &j, args, pid) },
	}
	j.flags(cmd)
	cmd.Flags().IntVar(&pid, "pid", 0, "one worker of captures that have several")
	return cmd
}

// match reports every file it can, and ends with the first failure's code.
func match(s streams, j *judged, args []string, pid int) error {
	if len(args) == 0 {
		return usageErrorf("match takes captures, core files or pasted stacks, or - for standard input")
	}
	if err := j.check(); err != nil {
		return err
	}
	m := matcher{s: s, j: j, r: j.load(), named: len(args) > 1}
	var first error
	for _, a := range args {
		in, err := readInput(a, s.in)
		if err == nil && pid != 0 {
			in, err = in.ofPID(pid)
		}
		if err == nil {
			err = m.input(in)
		}
		if err != nil {
			if first == nil {
				first = err
			}
			// One bad file spoils no other.
			fmt.Fprintf(s.err, "phpwhy: %s\n", oneLine(err))
		}
	}
	if first != nil {
		return &silentError{first}
	}
	return j.gate.verdict(nil)
}

// matcher prints one report after the other.
type matcher struct {
	s     streams
	j     *judged
	r     ruleSet
	named bool // there are several inputs
	shown bool
}

func (m *matcher) input(in *input) error {
	var damaged *triage.DamagedError
	var err error
	if errors.As(in.cut, &damaged) {
		err = &dataError{in.cut}
	}
	switch {
	case in.many == nil:
		return errors.Join(m.one(in, in.name, m.named), err)
	case m.j.format == "json":
		for _, one := range in.workers() {
			err = errors.Join(m.one(one, "", false), err)
		}
		return err
	}
	// The groups of the report, each by its first worker.
	all := in.many.build.Model(m.r.set, time.Now())
	for i := range all.Groups {
		ws := all.Groups[i].Workers
		var pids []string
		for _, w := range ws[:min(len(ws), maxPIDsNamed)] {
			pids = append(pids, all.PID(all.Workers[w].Host, all.Workers[w].PID))
		}
		name := in.name + ": pid " + pids[0]
		if len(pids) > 1 {
			name += ", and alike " + strings.Join(pids[1:], ", ")
		}
		if n := len(ws) - len(pids); n > 0 {
			name += fmt.Sprintf(" and %d more", n)
		}
		err = errors.Join(m.one(&input{name: in.name, capture: in.many.build.One(all, ws[0]), cut: in.cut}, name, true), err)
	}
	return err
}

// one prints one report, under its name if there are several.
func (m *matcher) one(in *input, name string, named bool) error {
	if in.cut != nil {
		in.capture.Observation.Notes = append(in.capture.Observation.Notes, in.cut.Error())
	}
	if m.j.format == "text" && named {
		if m.shown {
			fmt.Fprintln(m.s.out)
		}
		printf(m.s.out, "%s:", name)
	}
	m.shown = true
	return m.j.show(m.s, in.capture, m.r)
}
