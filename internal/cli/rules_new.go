package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/rules"
)

type newFlags struct {
	rulesFlags
	from  string
	not   []string
	id    string
	title string
	dir   string
	force bool
	pid   int
}

func newRulesNew(s streams) *cobra.Command {
	var f newFlags
	cmd := &cobra.Command{
		Use:   "new --from CAPTURE|-",
		Short: "Write a rule and its test from a capture or a pasted backtrace",
		Long: `new writes ID.yaml, ID.test.yaml and a copy of the capture to a folder. The rule
keeps the frames that most stacks begin with, down to where every PHP process
looks the same, and matches at once; --not names captures that it must not match, with none of their workers.
From standard input it also takes what gdb (bt), eu-stack or strace -k print.`,
		Example: "  phpwhy rules new --from hang.jsonl.zst --not healthy.jsonl.zst --id my.report-loop -o rules\n  gdb -p 4242 -batch -ex bt | phpwhy rules new --from - --id my.report-loop -o rules",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return makeRule(s, &f)
		},
	}
	f.flags(cmd, "text", "json")
	fl := cmd.Flags()
	fl.StringVar(&f.from, "from", "", "the capture, or - for text on standard input")
	fl.IntVar(&f.pid, "pid", 0, "the worker, where the capture of --from has several")
	fl.StringArrayVar(&f.not, "not", nil, "a capture that the rule must not match (may be repeated)")
	fl.StringVar(&f.id, "id", "", "the rule's id; otherwise made from the frames")
	fl.StringVar(&f.title, "title", "", "the rule's title")
	fl.StringVarP(&f.dir, "output", "o", ".", "folder to write to")
	fl.BoolVar(&f.force, "force", false, "overwrite files")
	return cmd
}

// written is the JSON form of "rules new" (phpwhy/rules-new/v1).
type written struct {
	Schema  string   `json:"schema"`
	Rule    string   `json:"rule"`
	Files   []string `json:"files"` // the rule, its test, the captures
	Score   float64  `json:"score"`
	Notes   []string `json:"notes"`
	Similar []nearV1 `json:"similar"`
}

func makeRule(s streams, f *newFlags) error {
	if f.from == "" {
		return usageErrorf("--from is missing: name a capture, or - for a backtrace on standard input")
	}
	in, err := readOne(f.from, s.in, f.pid)
	if err != nil {
		return err
	}
	var nots []*input
	opt := rules.DraftOptions{ID: f.id, Title: f.title}
	for _, n := range f.not {
		not, err := readInput(n, s.in)
		if err != nil {
			return err
		}
		for _, one := range not.workers() {
			nots = append(nots, one)
			opt.Not = append(opt.Not, one.observe())
		}
	}
	o := in.observe()
	d, err := rules.MakeDraft(o, opt)
	switch {
	case errors.Is(err, rules.ErrNotDistinct), errors.Is(err, rules.ErrNothingToDraft):
		return &checkError{exitCheck, "no rule was written: " + err.Error()}
	case err != nil:
		return &usageError{err}
	}
	set, _ := rules.LoadSources(ruleSources(f.noBuiltin, f.dirs)...)
	if r := set.Rule(d.ID); r != nil && r.Source == builtinSource {
		return usageErrorf("%s is a built-in rule; choose another --id", d.ID)
	}
	files, err := writeDraft(f, d, in, nots)
	if err != nil {
		return err
	}
	similar, err := set.Similar(d, o)
	if err != nil {
		return err
	}
	return f.show(s, d, files, similar)
}

func (f *newFlags) show(s streams, d *rules.Draft, files []string, similar []rules.Near) error {
	if f.format == "json" {
		out := written{Schema: "phpwhy/rules-new/v1", Rule: d.ID, Files: files, Score: d.Score, Notes: list(d.Notes), Similar: []nearV1{}}
		for _, n := range similar {
			out.Similar = append(out.Similar, nearV1{n.Rule.ID, n.Verdict.String(), n.Score, n.Fraction})
		}
		return writeJSON(s.out, out)
	}
	printf(s.out, "%s, score %.2f", d.ID, d.Score)
	for _, p := range files {
		printf(s.out, "  wrote %s", p)
	}
	for i := range similar {
		n := &similar[i]
		text := fmt.Sprintf("%s looks for %.0f %% of the same functions", n.Rule.ID, 100*n.Fraction)
		if n.Verdict == rules.Match {
			text = fmt.Sprintf("%s already matches this, score %.2f; is a new rule needed? If so, supersedes: [%s]", n.Rule.ID, n.Score, n.Rule.ID)
		}
		printf(s.out, "similar: %s", text)
	}
	for _, n := range d.Notes {
		printf(s.out, "note: %s", n)
	}
	printf(s.out, "next: edit title, message, explain and fix, then: phpwhy rules lint %s && phpwhy rules test %s", files[0], files[0])
	return nil
}

// writeDraft writes the rule, its test and copies of the captures.
func writeDraft(f *newFlags, d *rules.Draft, in *input, nots []*input) ([]string, error) {
	captures := filepath.Join(f.dir, "captures")
	if err := os.MkdirAll(captures, 0o755); err != nil {
		return nil, &usageError{err}
	}
	test := fmt.Sprintf("rule: %s\ncases:\n", d.ID)
	var copies []string
	for i, c := range append([]*input{in}, nots...) {
		name := d.ID
		if i > 0 {
			name = fmt.Sprintf("%s-not-%d", d.ID, i)
		}
		path, err := f.copyCapture(captures, name, c)
		if err != nil {
			return nil, err
		}
		copies = append(copies, path)
		what := "expect: no_match"
		if i > 0 && d.On(c.observe()) == rules.Undetermined {
			what = "expect: undetermined"
		}
		if i == 0 {
			what = "expect: match"
			if d.Site != "" {
				what += ", captures: {site: " + rules.Quote(d.Site) + "}"
			}
			what += fmt.Sprintf(`, score: ">=%.2f"`, d.Score-0.05)
		}
		test += fmt.Sprintf("  - {capture: %s, %s}\n", rules.Quote("captures/"+filepath.Base(path)), what)
	}
	rule := filepath.Join(f.dir, d.ID+".yaml")
	tests := filepath.Join(f.dir, d.ID+".test.yaml")
	if err := f.write(rule, []byte(d.Text)); err != nil {
		return nil, err
	}
	if err := f.write(tests, []byte(test)); err != nil {
		return nil, err
	}
	return append([]string{rule, tests}, copies...), nil
}

// copyCapture keeps a capture, without what rules don't look at: the values of
// variables, the command line and the request.
func (f *newFlags) copyCapture(dir, name string, in *input) (string, error) {
	if in.pasted {
		path := filepath.Join(dir, name+".txt")
		return path, f.write(path, in.text)
	}
	path := filepath.Join(dir, name+".jsonl.zst")
	if err := f.free(path); err != nil {
		return "", err
	}
	c := *in.capture
	if err := c.Normalize(); err != nil {
		return "", &usageError{err}
	}
	out, err := capture.Create(path)
	if err != nil {
		return "", &usageError{err}
	}
	if err := errors.Join(capture.Write(out, lean(&c)), out.Close()); err != nil {
		return "", fmt.Errorf("write %s: %w", path, err)
	}
	return path, nil
}

// lean is a capture without what may be secret and is no evidence.
func lean(c *capture.Capture) *capture.Capture {
	out := *c
	out.Target.Cmdline, out.Target.Request, out.Target.Requests, out.Variables = "", nil, nil, nil
	for i := range out.Stacks {
		for j := range out.Stacks[i].Frames {
			out.Stacks[i].Frames[j].Values = nil
		}
	}
	return &out
}

func (f *newFlags) free(path string) error {
	if _, err := os.Stat(path); err == nil && !f.force {
		return usageErrorf("%s exists; take another --id, or --force", path)
	}
	return nil
}

func (f *newFlags) write(path string, b []byte) error {
	if err := f.free(path); err != nil {
		return err
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		return &usageError{err}
	}
	return nil
}
