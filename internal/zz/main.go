package main

import (
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/rules"
	"github.com/phpwhy/phpwhy/rules/builtin"
)

func main() {
	set, ps := rules.Load(builtin.FS)
	fmt.Print(ps, "\n")
	only := os.Getenv("RULE")
	for _, f := range os.Args[1:] {
		r, err := capture.Open(f)
		if err != nil {
			panic(err)
		}
		c, err := capture.Read(r)
		if err != nil {
			panic(err)
		}
		o := capture.Observe(c)
		rep, err := set.Evaluate(o, rules.Options{})
		if err != nil {
			panic(err)
		}
		var fs []string
		for _, x := range rep.Findings {
			fs = append(fs, fmt.Sprintf("%s %.2f %d/%d", x.Rule, x.Confidence, x.Matched, x.Of))
		}
		var und, hid []string
		for _, x := range rep.Results {
			if x.Verdict == rules.Undetermined && (only == "" || x.Rule.ID == only) {
				und = append(und, x.Rule.ID)
			}
			if x.Hidden != "" {
				hid = append(hid, x.Rule.ID+": "+x.Hidden)
			}
			if x.Rule.ID == only {
				fmt.Println("   ", x.Verdict, x.Missing, x.Errors, x.Skipped)
			}
		}
		fmt.Printf("%-40s %v  stops+samples %d und %v hid %v\n", strings.TrimSuffix(path.Base(f), ".jsonl.zst"), fs, len(o.Events), und, hid)
		if only != "" {
			fmt.Println(o.Facts)
			for _, s := range o.Stacks {
				var names []string
				for _, fr := range s.Frames {
					n := fr.Name
					if fr.Kind == rules.PHP {
						n = fmt.Sprintf("PHP:%s:%d", n, fr.Line)
					}
					if n == "" {
						n = "??"
					}
					names = append(names, n)
				}
				fmt.Println("   ", names, s.Truncated)
			}
		}
	}
}
