package rules

import (
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"sort"
	"strings"
	"sync"
)

// maxFiles bounds the rule files of one source.
const maxFiles = 20_000

// Set are the rules that can be evaluated together.
type Set struct {
	rules []*Rule
	byID  map[string]*Rule
	// broken are the rules that did not load, as far as they could be read: they are
	// linted all the same, and their tests are no tests of nothing.
	broken []*Rule

	once    sync.Once
	matcher *matcher
}

// Rules lists the rules by id.
func (s *Set) Rules() []*Rule { return s.rules }

// Rule finds a rule by id, or nil.
func (s *Set) Rule(id string) *Rule { return s.byID[id] }

// Find finds a rule by id; the error proposes another when there is none.
func (s *Set) Find(id string) (*Rule, error) {
	if r := s.byID[id]; r != nil {
		return r, nil
	}
	if s.failed(id) {
		return nil, fmt.Errorf("rule %s has errors and was not loaded", id)
	}
	return nil, fmt.Errorf("no rule is called %s%s", id, didYouMean(id, s.ids()))
}

// failed reports whether a rule is there that did not load.
func (s *Set) failed(id string) bool {
	return slices.ContainsFunc(s.broken, func(r *Rule) bool { return r.ID == id })
}

// Source is a folder of rules; folders below it whose names begin with a dot are
// left out. A rule of a later source may override one of an
// earlier source.
type Source struct {
	FS fs.FS
	// Name is what the source is called in messages, before the path of the
	// file: a folder's path, "builtin"; "" for nothing.
	Name string
	// Trusted says that the expressions are known to be right, as those of a
	// pack whose tests have compiled them. Each is then compiled when a verdict
	// first depends on it, which makes loading several times as fast. What is
	// wrong with one is no Problem then, but in Result.Errors.
	Trusted bool
	// Prepared is what Prepare made of FS, nil for nothing. Files that have changed
	// since are read as any other.
	Prepared []byte
}

// Load reads every *.yaml and *.yml file (except *.test.yaml) of the file
// systems. Rules with problems are left out of the Set.
func Load(dirs ...fs.FS) (*Set, []Problem) {
	sources := make([]Source, len(dirs))
	for i, d := range dirs {
		sources[i].FS = d
	}
	return LoadSources(sources...)
}

// LoadSources reads the rules of several sources, as Load does.
func LoadSources(sources ...Source) (*Set, []Problem) {
	l := loader{set: &Set{byID: make(map[string]*Rule)}}
	for i, src := range sources {
		l.source(i, src)
	}
	l.dropCycles()
	s := l.set
	for _, r := range s.byID {
		s.rules = append(s.rules, r)
	}
	sort.Slice(s.rules, func(i, j int) bool { return s.rules[i].ID < s.rules[j].ID })
	sortProblems(l.problems)
	return s, l.problems
}

// loader puts a Set together.
type loader struct {
	set      *Set
	problems []Problem
}

func (l *loader) fail(file string, at mark, code, format string, args ...any) {
	l.problems = append(l.problems, Problem{file, max(at.line, 1), max(at.col, 1), code, fmt.Sprintf(format, args...)})
}

func (l *loader) source(index int, src Source) {
	files := 0
	prep, _ := readPrepared(src.Prepared) // without it, it takes longer
	err := walk(src.FS, func(p string, e fs.DirEntry, err error) error {
		file := path.Join(src.Name, p)
		if err != nil {
			l.fail(file, mark{}, codeYAML, "%v", err)
			return nil
		}
		if e.IsDir() || !isRuleFile(p) {
			return nil
		}
		if files++; files > maxFiles {
			l.fail(file, mark{}, codeYAML, "more than %d rule files; the rest is left out", maxFiles)
			return fs.SkipAll
		}
		b, err := readFile(src.FS, p)
		if err != nil {
			l.fail(file, mark{}, codeYAML, "%v", err)
			return nil
		}
		r, ps := parse(&decoder{file: file, path: p, trusted: src.Trusted, prepared: prep}, b)
		l.problems = append(l.problems, ps...)
		r.source, r.Source = index, src.Name
		if len(ps) > 0 {
			l.set.broken = append(l.set.broken, r)
			return nil
		}
		l.add(r)
		return nil
	})
	if err != nil {
		l.fail(path.Join(src.Name, "."), mark{}, codeYAML, "%v", err)
	}
}

// add puts a rule into the set, unless it claims the place of another.
func (l *loader) add(r *Rule) {
	old := l.set.byID[r.ID]
	if !l.replaces(r, old) {
		l.set.broken = append(l.set.broken, r)
		return
	}
	r.replaces = old
	l.set.byID[r.ID] = r
}

// replaces reports whether a rule can take the place of old, which may be nil.
func (l *loader) replaces(r, old *Rule) bool {
	switch {
	case old == nil:
		// Overriding nothing does no harm: the other is not loaded here.
	case r.Overrides == nil && old.source != r.source:
		l.fail(r.File, r.at["id"], codeDuplicate, "rule %s is already defined in %s; to replace it, say overrides: %s@%d", r.ID, old.File, r.ID, old.Revision)
		return false
	case r.Overrides == nil || old.source == r.source:
		l.fail(r.File, r.at["id"], codeDuplicate, "rule %s is already defined in %s", r.ID, old.File)
		return false
	case r.Overrides.Revision != old.Revision:
		l.fail(r.File, r.at["overrides"], codeOverride, "it overrides %s, but %s has revision %d: compare the two and say %s@%d",
			r.Overrides, old.File, old.Revision, r.ID, old.Revision)
		return false
	}
	return true
}

// readFile reads no more of a file than document needs to refuse it. What is
// no regular file is refused: opening a pipe would wait for a writer.
func readFile(dir fs.FS, path string) ([]byte, error) {
	st, err := fs.Stat(dir, path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	f, err := dir.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile+1))
}

// walk visits the files below a folder. Folders whose names begin with a dot are not
// meant: .git, and where Kubernetes keeps what it links to.
func walk(dir fs.FS, visit fs.WalkDirFunc) error {
	return fs.WalkDir(dir, ".", func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() && p != "." && strings.HasPrefix(e.Name(), ".") {
			return fs.SkipDir
		}
		return visit(p, e, err)
	})
}

func isTestFile(path string) bool {
	return strings.HasSuffix(path, ".test.yaml") || strings.HasSuffix(path, ".test.yml")
}

func isRuleFile(path string) bool {
	return !isTestFile(path) && (strings.HasSuffix(path, ".yaml") || strings.HasSuffix(path, ".yml"))
}

// dropCycles leaves out rules that supersede each other in a circle. Of rules
// from several sources those of the last go: a folder of one's own must not
// take built-in rules down.
func (l *loader) dropCycles() {
	for {
		var bad []*Rule
		for _, r := range l.set.byID {
			if path := l.circle(r); path != nil {
				bad = append(bad, r)
			}
		}
		if len(bad) == 0 {
			return
		}
		last := slices.MaxFunc(bad, func(a, b *Rule) int { return a.source - b.source }).source
		var drop []*Rule
		for _, r := range bad {
			if r.source != last {
				continue
			}
			drop = append(drop, r)
			l.fail(r.File, r.at["supersedes"], codeCycle, "%s supersedes itself in a circle: %s", r.ID, strings.Join(l.circle(r), ", "))
		}
		for _, r := range drop {
			delete(l.set.byID, r.ID)
			l.set.broken = append(l.set.broken, r)
			if r.replaces != nil {
				l.set.byID[r.ID] = r.replaces
			}
		}
	}
}

// circle is a way from a rule back to itself by supersedes, nil if there is none.
func (l *loader) circle(r *Rule) []string {
	from := make(map[string]string)
	todo := []*Rule{r}
	for len(todo) > 0 {
		at := todo[0]
		todo = todo[1:]
		for _, id := range at.Supersedes {
			if _, seen := from[id]; seen {
				continue
			}
			from[id] = at.ID
			if id == r.ID {
				way := []string{r.ID}
				for at := from[id]; at != r.ID; at = from[at] {
					way = append(way, at)
				}
				way = append(way, r.ID)
				slices.Reverse(way)
				return way
			}
			if o := l.set.byID[id]; o != nil {
				todo = append(todo, o)
			}
		}
	}
	return nil
}
