package rules

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/phpwhy/phpwhy/symbolize/symname"
)

// LintOptions say what Lint holds rules against.
type LintOptions struct {
	Tests []Case
	// Symbols are the C functions that are known beside PHP's own.
	Symbols Symbols
	// Open reads a capture of Tests by its path; what it has in its stacks is known to
	// the rule under test. It is called when a name is not known otherwise; nil for
	// never.
	Open func(path string) (*Observation, error)
	// Now is the time at which exceptions expire; with the zero time none does.
	Now time.Time
	// Only tells the rules that are meant, nil for all. The others are there
	// to be superseded and overridden.
	Only func(*Rule) bool
}

// Lint finds what loads without a problem and is yet a mistake. Of rules that did
// not load it looks at the parts that have no problem.
func (s *Set) Lint(o LintOptions) []Problem {
	l := linter{set: s, o: o}
	tested := make(map[string]map[Verdict]bool)
	for i := range o.Tests {
		c := &o.Tests[i]
		if !s.has(c.Rule) && tested[c.Rule] == nil && c.RuleLine > 0 {
			l.file = c.File
			l.addf(mark{c.RuleLine, c.RuleCol}, codeTestRule, "no rule is called %s%s", c.Rule, didYouMean(c.Rule, s.ids()))
		}
		if tested[c.Rule] == nil {
			tested[c.Rule] = make(map[Verdict]bool)
		}
		tested[c.Rule][c.Expect] = true
		if c.Broken { // it may expect anything
			tested[c.Rule][NoMatch] = true
		}
	}
	for _, r := range slices.Concat(s.rules, s.broken) {
		if o.Only == nil || o.Only(r) {
			l.rule(r, tested[r.ID])
		}
	}
	sortProblems(l.problems)
	return l.problems
}

// has reports whether there is a rule of an id, whether it loads or not.
func (s *Set) has(id string) bool { return s.Rule(id) != nil || s.failed(id) }

func (s *Set) ids() []string { return slices.Sorted(maps.Keys(s.byID)) }

// linter collects the problems of one run.
type linter struct {
	set      *Set
	o        LintOptions
	file     string
	problems []Problem
	own      map[string]*Symbols // by rule: see captured
}

func (l *linter) addf(at mark, code, format string, args ...any) {
	l.problems = append(l.problems, Problem{l.file, max(at.line, 1), max(at.col, 1), code, fmt.Sprintf(format, args...)})
}

func (l *linter) rule(r *Rule, tested map[Verdict]bool) {
	l.file = r.File
	switch {
	case r.guessed:
	case len(tested) == 0:
		l.addf(r.at["id"], codeUntested, "no test says when %s matches; phpwhy rules new shows what a test looks like", r.ID)
	case !tested[NoMatch] && r.Maturity != "experimental":
		// A draft has no near miss yet: it comes with use.
		l.addf(r.at["id"], codeNoNearMiss, "no test says when %s does not match: add a capture of a near miss with expect: no_match", r.ID)
	}
	if r.Overrides != nil && r.replaces == nil && !l.set.failed(r.ID) {
		l.addf(r.at["overrides"], codeNoOverride, "no rule %s is loaded here that could be overridden", r.ID)
	}
	for _, id := range r.Supersedes {
		if !l.set.has(id) && !blank(id) {
			l.addf(r.at["supersedes"], codeSupersedes, "supersedes a rule that does not exist: %s%s", id, didYouMean(id, l.set.ids()))
		}
	}
	l.applies(r)
	l.patterns(r)
	l.names(r)
	l.score(r)
	l.exceptions(r)
}

// score adds up the most that a rule can reach.
func (l *linter) score(r *Rule) {
	most := r.score.base
	for _, p := range r.score.plus {
		most += max(0, p.add)
	}
	if most < r.score.reportAt && !r.bad["score"] {
		l.addf(r.at["score"], codeNoReport, "the score is %.2f at most and never reaches report_at, %.2f", most, r.score.reportAt)
	}
}

// sapis are the names that php_sapi_name gives.
var sapis = []string{"apache2handler", "cgi-fcgi", "cli", "cli-server", "embed", "fpm-fcgi", "frankenphp", "fuzzer", "litespeed", "phpdbg", "unit", "uwsgi"}

func (l *linter) applies(r *Rule) {
	at := r.at["applies_to"]
	for _, s := range r.applies.sapi {
		if !slices.Contains(sapis, s) {
			l.addf(at, codeSAPI, "no SAPI is called %s%s", s, didYouMean(s, sapis))
		}
	}
	if !r.bad["applies_to"] && !released(r.applies.php) {
		l.addf(at, codeNoVersion, "no PHP has a version in this range")
	}
}

// released reports whether some version from 5.2 to 8.9 meets the tests.
func released(ts []versionTest) bool {
	for major, minors := range map[int][2]int{5: {2, 6}, 7: {0, 4}, 8: {0, 9}} {
		for minor := minors[0]; minor <= minors[1]; minor++ {
			for patch := range 60 {
				if meets([]int{major, minor, patch}, ts) {
					return true
				}
			}
		}
	}
	return false
}

// patterns looks at the rule's frame lines.
func (l *linter) patterns(r *Rule) {
	texts := make(map[string]string)
	for _, a := range r.alts {
		if a.prg == nil {
			continue
		}
		p := a.prg.p
		if !a.broken && !p.exact() {
			l.addf(a.at, codeNoAnchor, "%s has no line that one exact name must match, so it is tried on every stack%s", a.title(), unkHint(p))
		}
		key := fmt.Sprint(a.group, p.php)
		for i := range p.elements {
			e := &p.elements[i]
			key += "\n" + strings.Join(strings.Fields(e.text), " ")
			if !e.php {
				l.symbols(r, e)
			}
		}
		if a.broken {
			continue
		}
		if other, twice := texts[key]; twice {
			l.addf(a.at, codeTwice, "%s is the same as %s", a.title(), other)
		}
		texts[key] = a.title()
	}
}

func unkHint(p *pattern) string {
	for i := range p.elements {
		if e := &p.elements[i]; e.unk && len(e.names) > 0 && e.min > 0 {
			return "; a line with unk is no anchor"
		}
	}
	return ""
}

// title is how messages call an alternative.
func (a *alternative) title() string {
	switch {
	case a.name != "":
		return a.name
	case a.prg.php:
		return "php"
	}
	return "stack"
}

// exact reports whether some frame must have one of a few exact names, which
// is what the index of patterns goes by. PHP's own frames are few, and user
// code can be called anything: any line that must match is good there.
func (p *pattern) exact() bool {
	for i := range p.elements {
		e := &p.elements[i]
		if e.min > 0 && (e.php && !e.any || !e.unk && len(e.names) > 0 && len(e.globs) == 0) {
			return true
		}
	}
	return false
}

// symbols looks up the names of a frame line.
func (l *linter) symbols(r *Rule, e *element) {
	for _, w := range e.words {
		at := mark{e.at.line, e.at.col + w.off}
		if isGlob(w.text) {
			if !l.o.Symbols.matches(w.text) && !l.captured(r).matches(w.text) {
				l.addf(at, codeSymbol, "no known symbol fits %s", w.text)
			}
			continue
		}
		if name := symname.Canonical(w.text); !l.o.Symbols.has(name) && !l.captured(r).has(name) {
			hint := ""
			if n := l.o.Symbols.like(name); n != "" {
				hint = fmt.Sprintf(" (did you mean %s?)", n)
			}
			l.addf(at, codeSymbol, "name in no known symbol list: %s%s", w.text, hint)
		}
	}
}

// captured are the names in the captures of a rule's tests. Most rules need none
// of them, and to read them takes long.
func (l *linter) captured(r *Rule) *Symbols {
	if l.own == nil {
		l.own = make(map[string]*Symbols)
	}
	k := l.own[r.ID]
	if k != nil {
		return k
	}
	k = &Symbols{}
	l.own[r.ID] = k
	for i := range l.o.Tests {
		c := &l.o.Tests[i]
		if c.Rule != r.ID || l.o.Open == nil {
			continue
		}
		if o, err := l.o.Open(c.Capture); err == nil { // who can't read it says so elsewhere
			k.addStacks(o)
		}
	}
	return k
}

// names finds what is bound and not used.
func (l *linter) names(r *Rule) {
	if r.message == nil {
		return
	}
	for _, n := range slices.Sorted(maps.Keys(r.bind)) {
		if !slices.Contains(r.message.names, n) {
			l.addf(r.at["bind"], codeUnused, "%s is bound, but message does not show it", n)
		}
	}
	for _, m := range singleBraces.FindAllStringSubmatch(strings.Join(r.message.text, "\n"), -1) {
		if _, bound := r.bind[m[1]]; bound || r.captures(m[1]) {
			l.addf(r.at["message"], codeUnused, "message shows {%s} as it stands here; for its value write {{%s}}", m[1], m[1])
		}
	}
}

// singleBraces finds what looks like a placeholder and is none.
var singleBraces = regexp.MustCompile(`\{([A-Za-z_][A-Za-z_0-9]*)\}`)

func (l *linter) exceptions(r *Rule) {
	for _, e := range r.exceptions {
		switch {
		case r.bad["match"]:
		case !r.captures("site"):
			l.addf(e.mark, codeException, "no frame line has as=site, so this exception never applies")
		case e.until.IsZero(): // its date can't be read
		case !l.o.Now.IsZero() && !l.o.Now.Before(e.until):
			l.addf(e.mark, codeException, "this exception ended on %s", e.until.AddDate(0, 0, -1).Format(time.DateOnly))
		}
	}
}

// captures reports whether some frame line captures a name.
func (r *Rule) captures(name string) bool {
	for _, a := range r.alts {
		for i := range a.prg.p.elements {
			if a.prg.p.elements[i].as == name {
				return true
			}
		}
	}
	return false
}
