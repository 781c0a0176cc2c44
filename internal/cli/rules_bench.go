package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/phpwhy/phpwhy/rules"
)

func newRulesBench(s streams) *cobra.Command {
	var f rulesFlags
	opt := rules.BenchOptions{Stacks: 1_000_000, Frames: 40, Rules: 500, Naive: 1000, Seed: 1}
	cmd := &cobra.Command{
		Use:   "bench [DIR|FILE]...",
		Short: "Measure how fast the rules match, and which are slow",
		Long: `bench runs the rules, and made-up ones of the usual shape up to
--rules-total, over made-up stacks of which no two are the same; on one core. Beside it
stands the same work done by trying every pattern on --naive of the stacks.`,
		Example: "  phpwhy rules bench\n  phpwhy rules bench --rules-total 0 /etc/phpwhy/rules",
		RunE: func(_ *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			if opt.Stacks < 1 || opt.Frames < 12 || opt.Frames > 1000 || opt.Rules < 0 || opt.Naive < 0 || opt.Stacks > 1<<24 {
				return usageErrorf("--stacks is 1 to %d, --frames 12 to 1000, the others are not negative", 1<<24)
			}
			return bench(s, &f, opt, args)
		},
	}
	f.flags(cmd, "text", "json")
	fl := cmd.Flags()
	fl.IntVar(&opt.Stacks, "stacks", opt.Stacks, "distinct stacks")
	fl.IntVar(&opt.Frames, "frames", opt.Frames, "frames of each")
	fl.IntVar(&opt.Rules, "rules-total", opt.Rules, "rules in all: made-up ones are added")
	fl.IntVar(&opt.Naive, "naive", opt.Naive, "stacks on which trying everything is measured")
	return cmd
}

// benched is the JSON form (phpwhy/rules-bench/v1); times are in nanoseconds.
type benched struct {
	Schema       string      `json:"schema"`
	Stacks       int         `json:"stacks"`
	Frames       int         `json:"frames"`
	Rules        int         `json:"rules"`
	Alternatives int         `json:"alternatives"`
	MatchNS      int64       `json:"match_ns"`
	InternNS     int64       `json:"intern_ns_per_stack"`
	NaiveNS      int64       `json:"naive_ns_per_stack"`
	PerSecond    float64     `json:"stacks_per_second"`
	Candidates   float64     `json:"candidates_per_stack"`
	Ran          float64     `json:"automatons_per_stack"`
	Hits         int         `json:"hits"`
	Slowest      []benchRule `json:"slowest"`
}

type benchRule struct {
	Rule       string  `json:"rule"`
	NS         int64   `json:"ns_per_stack"`
	Candidates float64 `json:"candidates_per_stack"`
}

func bench(s streams, f *rulesFlags, opt rules.BenchOptions, args []string) error {
	sel, err := f.choose(args)
	if err != nil {
		return err
	}
	set, problems := rules.LoadSources(sel.chosen...)
	for _, p := range problems {
		printf(s.err, "phpwhy: rule skipped: %s", p)
	}
	r, err := set.Bench(opt)
	if err != nil {
		return err
	}
	perSecond := float64(r.Stacks) / r.Match.Seconds()
	if f.format == "json" {
		out := benched{"phpwhy/rules-bench/v1", r.Stacks, r.Frames, r.Rules, r.Alternatives, r.Match.Nanoseconds(), r.Intern.Nanoseconds(),
			r.Naive.Nanoseconds(), perSecond, r.Candidates, r.Ran, r.Hits, []benchRule{}}
		for _, c := range r.Slowest {
			out.Slowest = append(out.Slowest, benchRule{c.Rule.ID, c.PerStack.Nanoseconds(), c.Candidates})
		}
		return writeJSON(s.out, out)
	}
	w := s.out
	fmt.Fprintf(w, "%s with %s over %s of %d frames, one core\n", plural(r.Rules, "rule"), plural(r.Alternatives, "alternative"), plural(r.Stacks, "distinct stack"), r.Frames)
	fmt.Fprintf(w, "matching: %v at best of 3, %.0f ns a stack, %.2f million stacks a second\n", r.Match.Round(time.Millisecond), float64(r.Match.Nanoseconds())/float64(r.Stacks), perSecond/1e6)
	fmt.Fprintf(w, "the index proposes %.2f alternatives a stack, %.2f automatons run; %d matches\n", r.Candidates, r.Ran, r.Hits)
	fmt.Fprintf(w, "names to numbers, once: %v a stack\n", r.Intern)
	if opt.Naive > 0 {
		fmt.Fprintf(w, "trying every pattern: %v a stack, %.0f times as long\n", r.Naive, float64(r.Naive)*float64(r.Stacks)/float64(r.Match))
	}
	for i, c := range r.Slowest {
		if i == 0 {
			fmt.Fprintf(w, "\nslowest of the rules, each by itself:\n")
		}
		printf(w, "%6d ns a stack  %5.3f proposed  %s", c.PerStack.Nanoseconds(), c.Candidates, c.Rule.ID)
	}
	return nil
}
