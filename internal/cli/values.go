package cli

import (
	"github.com/spf13/cobra"

	"github.com/phpwhy/phpwhy/internal/observe"
)

// lookFlags ask for values of PHP variables.
type lookFlags struct {
	values bool
	vars   []string
}

func (l *lookFlags) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&l.values, "values", false, "also read and show the variables of PHP frames; what looks like a secret is redacted")
	f.StringArrayVar(&l.vars, "var", nil, "watch one variable, as NAME@FILE:LINE or NAME@FILE (may be repeated)")
}

// maxVars bounds --var: each is looked for at every stop.
const maxVars = 64

func (l *lookFlags) look() (observe.Look, error) {
	out := observe.Look{Values: l.values}
	if len(l.vars) > maxVars {
		return out, usageErrorf("--var may be repeated %d times at most", maxVars)
	}
	for _, s := range l.vars {
		v, err := observe.ParseVar(s)
		if err != nil {
			return out, usageErrorf("--var: %v", err)
		}
		out.Vars = append(out.Vars, v)
	}
	return out, nil
}
