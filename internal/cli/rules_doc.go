package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/phpwhy/phpwhy/rules"
)

func newRulesDoc(s streams) *cobra.Command {
	var f rulesFlags
	var dir string
	cmd := &cobra.Command{
		Use:   "doc [DIR|FILE]...",
		Short: "Write a catalogue of rules in Markdown",
		Long: `doc describes rules: what each finds, how it recognises it, what to do and what it
was tested on. With --output it writes README.md and a page for each rule to a
folder, and removes the pages of rules that are gone; otherwise all goes to
standard output. With --format json that is an array of rules.`,
		Example: "  phpwhy rules doc --output docs/rules",
		RunE: func(_ *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return document(s, &f, dir, args)
		},
	}
	f.flags(cmd, "markdown", "json")
	cmd.Flags().StringVarP(&dir, "output", "o", "", "folder to write to")
	return cmd
}

// documented is a rule in the JSON of "rules doc", which is an array of them.
type documented struct {
	ID       string   `json:"id"`
	Title    string   `json:"title"`
	Severity string   `json:"severity"`
	Kind     string   `json:"kind"`
	Maturity string   `json:"maturity"`
	Message  string   `json:"message"` // as it is written: {{name}} stands for a value
	Explain  string   `json:"explain"`
	Fix      string   `json:"fix"`
	Refs     []string `json:"refs"`
}

func documentJSON(w io.Writer, rs []*rules.Rule) error {
	out := []documented{}
	for _, r := range rs {
		out = append(out, documented{r.ID, r.Title, string(r.Severity), string(r.Kind), r.Maturity, r.Message(),
			strings.TrimSpace(r.Explain), strings.TrimSpace(r.Fix), list(r.Refs)})
	}
	return writeJSON(w, out)
}

func document(s streams, f *rulesFlags, dir string, args []string) error {
	if f.format != "markdown" && dir != "" {
		return usageErrorf("--output is for markdown; JSON goes to standard output")
	}
	sel, err := f.choose(args)
	if err != nil {
		return err
	}
	set, problems := rules.LoadSources(sel.all()...)
	for _, p := range problems {
		printf(s.err, "phpwhy: rule skipped: %s", p)
	}
	cases, _ := rules.LoadTestSources(sel.chosen...)
	pages := make(map[string][]byte)
	var chosen []*rules.Rule
	for _, r := range set.Rules() {
		if sel.chose(r) {
			chosen = append(chosen, r)
			pages[r.ID+".md"] = page(set, r, cases)
		}
	}
	if len(chosen) == 0 {
		return usageErrorf("no rules in %s", strings.Join(args, ", "))
	}
	if f.format == "json" {
		return documentJSON(s.out, chosen)
	}
	index := contents(chosen)
	if dir == "" {
		if _, err := s.out.Write(index); err != nil {
			return err
		}
		for _, name := range sorted(pages) {
			if _, err := s.out.Write(append([]byte("\n"), pages[name]...)); err != nil {
				return err
			}
		}
		return nil
	}
	pages["README.md"] = index
	return writePages(dir, pages)
}

// marker stands at the top of each page, so that only own pages are removed.
const marker = "<!-- made by phpwhy rules doc -->\n"

func writePages(dir string, pages map[string][]byte) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return &usageError{err}
	}
	old, err := filepath.Glob(filepath.Join(dir, "*.md"))
	if err != nil {
		return &usageError{err}
	}
	for _, o := range old {
		b, err := os.ReadFile(o)
		if errors.Is(err, fs.ErrNotExist) || err == nil && (pages[filepath.Base(o)] != nil || !bytes.HasPrefix(b, []byte(marker))) {
			continue
		}
		if err == nil {
			err = os.Remove(o)
		}
		if err != nil {
			return &usageError{err}
		}
	}
	for _, name := range sorted(pages) {
		if err := os.WriteFile(filepath.Join(dir, name), pages[name], 0o644); err != nil {
			return &usageError{err}
		}
	}
	return nil
}

// contents is the first page: all rules by the first word of their ids.
func contents(rs []*rules.Rule) []byte {
	var b bytes.Buffer
	b.WriteString(marker + "# Rules\n\nThe root causes that phpwhy names. A rule matches stacks, PHP's frames and measurements; its page says\nwhich ones, and what it was tested on.\n")
	group := ""
	for _, r := range rs {
		if g, _, _ := strings.Cut(r.ID, "."); g != group {
			group = g
			fmt.Fprintf(&b, "\n## %s\n\n| rule | severity | cause |\n| --- | --- | --- |\n", g)
		}
		fmt.Fprintf(&b, "| [`%s`](%s.md) | %s | %s |\n", r.ID, r.ID, r.Severity, cell(r.Title+benignWord(r)))
	}
	b.WriteString("\n## What expressions know\n\nIn `expr`, `bind` and `plus`. A double is written with a decimal point: `proc.cpu_pct > 50.0`. What was not\ncollected makes a rule undetermined, unless its verdict does not depend on it.\n\n| name | type | needs |\n| --- | --- | --- |\n")
	for _, k := range rules.KnownEvidence() {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", k.Name, k.Type, cell(k.How))
	}
	return b.Bytes()
}

func benignWord(r *rules.Rule) string {
	if r.Kind == rules.Benign {
		return " (healthy)"
	}
	return ""
}

// cell keeps a text inside its cell of a table.
func cell(s string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(visible(s)), " "), "|", `\|`)
}

func page(set *rules.Set, r *rules.Rule, cases []rules.Case) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s# %s\n\n%s%s.\n\n", marker, r.ID, capital(cell(r.Title)), benignWord(r))
	row := func(key, value string) {
		if value != "" {
			fmt.Fprintf(&b, "| %s | %s |\n", key, cell(value))
		}
	}
	b.WriteString("| | |\n| --- | --- |\n")
	row("severity", string(r.Severity))
	row("maturity", r.Maturity)
	row("revision", fmt.Sprint(r.Revision))
	row("for", r.AppliesTo())
	row("hides", strings.Join(r.Supersedes, ", "))
	var by []string
	for _, o := range set.Rules() {
		if slices.Contains(o.Supersedes, r.ID) {
			by = append(by, o.ID)
		}
	}
	row("hidden by", strings.Join(by, ", "))
	for _, k := range sorted(r.Labels) {
		row(k, r.Labels[k])
	}
	part := func(title, text string) {
		if text = strings.TrimSpace(text); text != "" {
			fmt.Fprintf(&b, "\n## %s\n\n%s\n", title, text)
		}
	}
	part("How it comes to this", r.Explain)
	part("What to do", r.Fix)
	part("How it is recognised", fence(r.Section("match")+r.Section("bind")+r.Section("score")+r.Section("message")))
	var tests []string
	for _, c := range cases {
		if c.Rule == r.ID && !c.Broken {
			tests = append(tests, fmt.Sprintf("| `%s` | %s | %s |", path.Base(c.Capture), c.Expect, cell(c.Captures["site"])))
		}
	}
	if len(tests) > 0 {
		part("What it was tested on", "| capture | verdict | place |\n| --- | --- | --- |\n"+strings.Join(tests, "\n"))
	}
	var refs []string
	for _, ref := range r.Refs {
		refs = append(refs, "- "+cell(ref))
	}
	part("More", strings.Join(refs, "\n"))
	return b.Bytes()
}

func fence(yaml string) string { return "```yaml\n" + yaml + "```" }

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
