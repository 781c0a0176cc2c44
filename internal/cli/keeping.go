package cli

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/phpwhy/phpwhy/internal/diskcache"
	"github.com/phpwhy/phpwhy/internal/observe"
)

// keeping is the choice of a cache between runs.
type keeping struct{ off bool }

func (k *keeping) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&k.off, "no-cache", false,
		"neither use nor write what earlier runs found out about program files (else in $"+diskcache.Variable+", $XDG_CACHE_HOME/phpwhy or /var/cache/phpwhy)")
}

// in sets an observer's cache up and returns what saves it. A cache that can't be
// written costs time at the next run and is no reason to complain at this one.
func (k *keeping) in(o *observe.Observer) func() {
	if k.off {
		return func() {}
	}
	o.KeepIn(diskcache.Open(os.LookupEnv).For("/proc/self/exe"))
	return func() { _ = o.Keep() }
}
