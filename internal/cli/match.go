package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newMatch(s streams) *cobra.Command {
	var j judged
	cmd := &cobra.Command{
		Use:   "match FILE...|-",
		Short: "Run the rules over captures, core files, or stacks from gdb, eu-stack or strace -k",
		Long: `match says what the rules make of what was recorded elsewhere: captures of
"phpwhy attach --capture", core files ("phpwhy core" shows those, and finds their
programs elsewhere), or text that holds stacks as gdb (bt), eu-stack or strace -k
print them. Pasted stacks have no PHP frames and no measurements, so
many rules are undetermined on them.`,
		Example: "  phpwhy match hang.jsonl.zst\n  gdb -p 4242 -batch -ex bt | phpwhy match -",
		RunE:    func(_ *cobra.Command, args []string) error { return match(s, &j, args) },
	}
	j.flags(cmd)
	return cmd
}

// match reports every file it can, and ends with the first failure's code.
func match(s streams, j *judged, args []string) error {
	if len(args) == 0 {
		return usageErrorf("match takes captures, core files or pasted stacks, or - for standard input")
	}
	if err := j.check(); err != nil {
		return err
	}
	r := j.load()
	var first error
	for i, a := range args {
		in, err := readInput(a, s.in)
		if err == nil {
			err = matchOne(s, j, r, in, i, len(args))
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

func matchOne(s streams, j *judged, r ruleSet, in *input, i, of int) error {
	if in.cut != nil {
		in.capture.Observation.Notes = append(in.capture.Observation.Notes, in.cut.Error())
	}
	if j.format == "text" && of > 1 {
		if i > 0 {
			fmt.Fprintln(s.out)
		}
		printf(s.out, "%s:", in.name)
	}
	return j.show(s, in.capture, r)
}
