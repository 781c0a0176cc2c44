package cli

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/phpwhy/phpwhy/rules"
	"github.com/phpwhy/phpwhy/rules/builtin"
)

const (
	// builtinSource is how messages call the rules that come with phpwhy.
	builtinSource = "(built-in)"
	// systemRules is where the rules of a host are.
	systemRules = "/etc/phpwhy/rules"
)

// searchPath lists the folders whose rules are in force without being named,
// whether they exist or not.
func searchPath() []string {
	dirs := []string{systemRules}
	if d, err := os.UserConfigDir(); err == nil {
		dirs = append(dirs, filepath.Join(d, "phpwhy", "rules"))
	}
	return dirs
}

// ruleSources are the built-in rules, those of the search path and those of
// the folders that were named; a later one may override rules of an earlier.
func ruleSources(noBuiltin bool, dirs []string) []rules.Source {
	var out []rules.Source
	if !noBuiltin {
		out = append(out, builtinRules())
	}
	for _, d := range searchPath() {
		if st, err := os.Stat(d); err == nil && st.IsDir() && !named(d, dirs) {
			out = append(out, rules.Source{FS: os.DirFS(d), Name: d})
		}
	}
	for _, d := range distinct(dirs) {
		out = append(out, rules.Source{FS: os.DirFS(d), Name: filepath.Clean(d)})
	}
	return out
}

// distinct leaves out the folders that were named before, or that lie in others.
func distinct(dirs []string) []string {
	var out []string
	for i, d := range dirs {
		if !named(d, dirs[:i]) && !within(d, dirs) {
			out = append(out, d)
		}
	}
	return out
}

// within reports whether rules of a folder above are looked for at path, too.
func within(path string, dirs []string) bool {
	p, err := filepath.Abs(path)
	if err != nil {
		return false
	}
	for !strings.HasPrefix(filepath.Base(p), ".") && filepath.Dir(p) != p {
		if p = filepath.Dir(p); named(p, dirs) {
			return true
		}
	}
	return false
}

func builtinRules() rules.Source {
	return rules.Source{FS: builtin.FS, Name: builtinSource, Trusted: true, Prepared: builtin.Prepared}
}

// named reports whether a file or folder is among others, by whatever name.
func named(dir string, others []string) bool {
	st, err := os.Stat(dir)
	return err == nil && slices.ContainsFunc(others, func(o string) bool {
		so, err := os.Stat(o)
		return err == nil && os.SameFile(st, so)
	})
}

// rulesFlags are those of the commands about rules.
type rulesFlags struct {
	dirs      []string
	noBuiltin bool
	format    string
	formats   []string
}

func (f *rulesFlags) flags(cmd *cobra.Command, formats ...string) {
	f.formats = formats
	cmd.Flags().StringArrayVar(&f.dirs, "rules", nil, "folder with further rules (may be repeated)")
	cmd.Flags().BoolVar(&f.noBuiltin, "no-builtin-rules", false, "leave the built-in rules out")
	if len(formats) > 0 {
		cmd.Flags().StringVar(&f.format, "format", formats[0], oneOf(formats))
	}
}

func oneOf(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

func (f *rulesFlags) check() error {
	if len(f.formats) > 0 && !slices.Contains(f.formats, f.format) {
		return usageErrorf("--format is %s, not %q", oneOf(f.formats), f.format)
	}
	return (&judged{rules: f.dirs, format: "text"}).check()
}

// selection is what a command was told to look at, amid the rules in force.
type selection struct {
	base    []rules.Source // in force, and not what is looked at
	chosen  []rules.Source
	implied bool // nothing was named, so it is all that is in force
}

// choose turns arguments into sources: folders, rule files or test files.
func (f *rulesFlags) choose(args []string) (*selection, error) {
	sources := ruleSources(f.noBuiltin, f.dirs)
	if len(args) == 0 {
		return &selection{chosen: sources, implied: true}, nil
	}
	// What is being written may be a copy of what is installed, and a check
	// must not depend on the host: the search path stays out.
	sel := &selection{}
	if !f.noBuiltin {
		sel.base = append(sel.base, sources[0])
	}
	var folders []string
	for _, a := range args {
		if st, err := os.Stat(a); err == nil && st.IsDir() {
			folders = append(folders, a)
		}
	}
	for _, d := range distinct(f.dirs) {
		if !named(d, folders) && !within(d, folders) {
			sel.base = append(sel.base, rules.Source{FS: &otherFiles{os.DirFS(d), d, args}, Name: filepath.Clean(d)})
		}
	}
	seen := distinct(folders)
	for _, a := range args {
		st, err := os.Stat(a)
		switch {
		case err != nil:
			return nil, &usageError{err}
		case st.IsDir():
			if len(seen) > 0 && seen[0] == a {
				seen = seen[1:]
				sel.chosen = append(sel.chosen, rules.Source{FS: os.DirFS(a), Name: filepath.Clean(a)})
			}
		case !strings.HasSuffix(a, ".yaml") && !strings.HasSuffix(a, ".yml"):
			return nil, usageErrorf("%s is neither a folder nor a YAML file", a)
		case !within(a, folders):
			sel.file(a)
		}
	}
	return sel, nil
}

// file chooses a rule with its test, or a test with its rule; several of one
// folder are one source.
func (sel *selection) file(path string) {
	dir, base := filepath.Split(filepath.Clean(path))
	dir = filepath.Clean(dir)
	stem := strings.TrimSuffix(strings.TrimSuffix(base, filepath.Ext(base)), ".test")
	var files *someFiles
	for _, src := range sel.chosen {
		if s, ok := src.FS.(*someFiles); ok && named(dir, []string{src.Name}) {
			files = s
		}
	}
	if files == nil {
		files = &someFiles{FS: os.DirFS(dir), names: map[string]bool{rules.SymbolsFile: true}}
		sel.chosen = append(sel.chosen, rules.Source{FS: files, Name: dir})
	}
	for _, ext := range []string{".yaml", ".yml", ".test.yaml", ".test.yml"} {
		files.names[stem+ext] = true
	}
}

func (sel *selection) all() []rules.Source { return slices.Concat(sel.base, sel.chosen) }

// chose reports whether a rule is one of those that were chosen.
func (sel *selection) chose(r *rules.Rule) bool {
	return slices.ContainsFunc(sel.chosen, func(s rules.Source) bool {
		if s.Name != r.Source {
			return false
		}
		// The rest of the folder may be there by --rules.
		some, ok := s.FS.(*someFiles)
		return !ok || path.Join(s.Name, path.Base(r.File)) == r.File && some.names[path.Base(r.File)]
	})
}

// someFiles is a folder of which only some files show.
type someFiles struct {
	fs.FS
	names map[string]bool
}

// ReadDir implements fs.ReadDirFS.
func (s *someFiles) ReadDir(name string) ([]fs.DirEntry, error) {
	all, err := fs.ReadDir(s.FS, name)
	return slices.DeleteFunc(all, func(e fs.DirEntry) bool { return !s.names[e.Name()] }), err
}

// otherFiles is a folder without the files and folders that were chosen out of it.
type otherFiles struct {
	fs.FS
	dir    string
	chosen []string
}

// ReadDir implements fs.ReadDirFS.
func (o *otherFiles) ReadDir(name string) ([]fs.DirEntry, error) {
	all, err := fs.ReadDir(o.FS, name)
	return slices.DeleteFunc(all, func(e fs.DirEntry) bool { return named(filepath.Join(o.dir, name, e.Name()), o.chosen) }), err
}

func newRules(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rules",
		Short: "Write, check and look at rules",
		Long: `rules works on rule files, offline. Rules come with phpwhy, from /etc/phpwhy/rules,
from phpwhy/rules in the user's configuration folder, and from --rules DIR.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageErrorf("there is no command rules %q", args[0])
			}
			_ = cmd.Help()
			return usageErrorf("name a command")
		},
	}
	cmd.AddCommand(newRulesList(s), newRulesShow(s), newRulesLint(s), newRulesTest(s), newRulesExplain(s), newRulesNew(s),
		newRulesSchema(s), newRulesCoverage(s), newRulesBench(s), newRulesDoc(s))
	return cmd
}

// visible keeps the words of rules and captures from driving a terminal, and
// from breaking a line.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return '?'
		}
		return r
	}, s)
}

// printf writes one line that may hold words from outside.
func printf(w io.Writer, format string, args ...any) {
	for i, a := range args {
		switch v := a.(type) {
		case string:
			args[i] = visible(v)
		case error:
			args[i] = oneLine(v)
		case fmt.Stringer:
			args[i] = visible(v.String())
		}
	}
	fmt.Fprintf(w, format+"\n", args...)
}
