package rules

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	celast "cel.dev/cel-go/common/ast"
)

// CEL knows evidence such as chain.steps as one name with a dot in it. Where the name
// is misspelt it splits it and misses "chain", so what is wrong with names is
// found here first, and the rest of what CEL says is left as it is.

var (
	// word finds dotted names in an expression.
	word = lazily(`[A-Za-z_][A-Za-z_0-9]*(?:\s*\.\s*[A-Za-z_][A-Za-z_0-9]*)+`)
	// quoted finds string literals, in which a dotted word is no name.
	quoted = lazily(`"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'`)
	// hasMacro finds has(…), which CEL takes for a look into a message.
	hasMacro   = lazily(`\bhas\s*\(\s*([A-Za-z_][A-Za-z_0-9.]*)\s*\)`)
	undeclared = lazily(`^undeclared reference to '([^']*)'`)
)

// methods and functions are what CEL offers for the types that evidence has.
var (
	methods   = []string{"all", "contains", "endsWith", "exists", "exists_one", "filter", "map", "matches", "size", "startsWith"}
	functions = []string{"bool", "double", "duration", "dyn", "int", "matches", "size", "string", "timestamp", "type", "uint"}
)

// misnamed is a name that there is not, and where it stands in the text.
type misnamed struct {
	from, to int
	msg      string
}

// explainIssues says all that is wrong with an expression.
func explainIssues(text string, iss *cel.Issues) exprErrors {
	blank := quoted().ReplaceAllStringFunc(text, func(s string) string { return strings.Repeat(" ", len(s)) })
	found := misnamedIn(blank)
	var out exprErrors
	for _, m := range found {
		line, col := lineCol(text, m.from)
		out = append(out, exprError{line, col, m.msg})
	}
	for _, e := range iss.Errors() {
		msg, _, _ := strings.Cut(e.Message, "\n")
		line, col := max(e.Location.Line()-1, 0), max(e.Location.Column(), 0)
		at := offset(text, line, col)
		syntax := strings.HasPrefix(msg, "Syntax error")
		covered := slices.ContainsFunc(found, func(m misnamed) bool { return m.from <= at && at < m.to })
		if !syntax && (covered || strings.Contains(msg, "!error!")) {
			continue
		}
		out = append(out, exprError{line, col, advise(msg, blank, at)})
		if syntax {
			break // what follows is mostly its consequence
		}
	}
	slices.SortStableFunc(out, func(a, b exprError) int {
		if a.line != b.line {
			return a.line - b.line
		}
		return a.col - b.col
	})
	return out
}

// misnamedIn finds the names that are no evidence, no method, and no variable.
func misnamedIn(text string) []misnamed {
	var out []misnamed
	for _, m := range hasMacro().FindAllStringSubmatchIndex(text, -1) {
		if name := text[m[2]:m[3]]; evidence[name].typ != nil {
			out = append(out, misnamed{m[0], m[1], fmt.Sprintf("has() does not see evidence; leave has(%s) out: without it the rule is undetermined by itself", name)})
		}
	}
	for _, loc := range word().FindAllStringIndex(text, -1) {
		name := strings.Join(strings.Fields(text[loc[0]:loc[1]]), "")
		rest := text[loc[1]:]
		called, paren := false, 0
		if t := strings.TrimLeft(rest, " \t\n"); strings.HasPrefix(t, "(") {
			// CEL places a call at its parenthesis.
			called, paren = true, len(rest)-len(t)+1
		}
		if msg, off := misnomer(name, called); msg != "" {
			if len(name) != loc[1]-loc[0] {
				off = 0 // blanks stand in it
			}
			out = append(out, misnamed{loc[0] + off, loc[1] + paren, msg})
		}
	}
	return out
}

// misnomer says what is wrong with a dotted name, which is called when ( follows, and
// where in it; "" for nothing that is known here.
func misnomer(name string, called bool) (msg string, off int) {
	if evidence[name].typ != nil {
		return "", 0
	}
	head, last := name, ""
	if called {
		dot := strings.LastIndexByte(name, '.')
		head, last = name[:dot], name[dot+1:]
	}
	switch {
	case called && evidence[head].typ != nil:
		if slices.Contains(methods, last) {
			return "", 0 // CEL says what is wrong with the call
		}
		return fmt.Sprintf("%s has no method %s%s", head, last, didYouMeanFold(last, methods)), len(head) + 1
	case !knownSpace(name):
		return "", 0
	case strings.Contains(head, "."):
		return fmt.Sprintf("no evidence is called %s%s", head, likeEvidence(head)), 0
	}
	return fmt.Sprintf("no evidence is called %s%s", name, likeEvidence(name)), 0
}

// likeEvidence names the evidence that was probably meant: what goes on where the
// name ends (proc.cpu, of proc.cpu_pct), else what is spelt much like it.
func likeEvidence(name string) string {
	for _, n := range evidenceNames() {
		if strings.HasPrefix(n, name+"_") {
			return fmt.Sprintf(" (did you mean %s?)", n)
		}
	}
	return didYouMean(name, evidenceNames())
}

// didYouMeanFold also sees that only the case of letters differs.
func didYouMeanFold(word string, known []string) string {
	for _, k := range known {
		if strings.EqualFold(word, k) {
			return fmt.Sprintf(" (did you mean %s?)", k)
		}
	}
	return didYouMean(word, known)
}

// advise rewrites what CEL says of one place where that helps.
func advise(msg, text string, at int) string {
	switch {
	case strings.Contains(msg, "applied to '(double, int)'"):
		return msg + "; write the number with a decimal point"
	case strings.Contains(msg, "applied to '(int, double)'"):
		return msg + "; write the number without a decimal point"
	case strings.HasPrefix(msg, "Syntax error"):
		return adviseSyntax(msg, text, at)
	}
	m := undeclared().FindStringSubmatch(msg)
	if m == nil {
		return msg
	}
	if strings.HasSuffix(strings.TrimRight(text[:at], " \t\n"), m[1]) { // at the parenthesis of a call
		return fmt.Sprintf("no function is called %s%s", m[1], didYouMeanFold(m[1], slices.Concat(methods, functions)))
	}
	// steps alone, of chain.steps.
	for _, n := range evidenceNames() {
		if strings.HasSuffix(n, "."+m[1]) {
			return fmt.Sprintf("no evidence is called %s (did you mean %s?)", m[1], n)
		}
	}
	return fmt.Sprintf("no evidence is called %s%s", m[1], didYouMean(m[1], evidenceNames()))
}

// operators are how other languages write what CEL writes otherwise.
var operators = map[string]string{"and": "&&", "or": "||", "not": "!", "AND": "&&", "OR": "||", "NOT": "!", "<>": "!="}

// adviseSyntax says what to write. What CEL's parser would have taken instead is a
// list of its tokens, which tells nobody anything.
func adviseSyntax(msg, text string, at int) string {
	msg, _, _ = strings.Cut(msg, " expecting {")
	before := strings.TrimRight(text[:at], " \t\n")
	switch rest := text[at:]; {
	case strings.HasPrefix(rest, "= ") || strings.HasPrefix(rest, "=") && !strings.HasPrefix(rest, "=="):
		return msg + "; to compare write =="
	case strings.HasSuffix(before, "%"):
		return msg + "; write a percentage as a number: 50.0"
	case strings.TrimSpace(rest) == "":
		return "Syntax error: something is missing at the end"
	default:
		for other, ours := range operators {
			if f := strings.Fields(rest); len(f) > 0 && f[0] == other {
				return fmt.Sprintf("%s; for %s write %s", msg, other, ours)
			}
		}
	}
	return msg
}

// badRegexes finds the literal patterns of matches() that are none: CEL compiles them
// when the rule is evaluated.
func badRegexes(ast *cel.Ast) exprErrors {
	var out exprErrors
	rep := ast.NativeRep()
	for _, call := range celast.MatchDescendants(celast.NavigateAST(rep), celast.FunctionMatcher("matches")) {
		args := call.AsCall().Args()
		if len(args) == 0 || args[len(args)-1].Kind() != celast.LiteralKind {
			continue
		}
		arg := args[len(args)-1]
		pattern, ok := arg.AsLiteral().Value().(string)
		if !ok {
			continue
		}
		if _, err := regexp.Compile(pattern); err != nil {
			loc := rep.SourceInfo().GetStartLocation(arg.ID())
			out = append(out, exprError{max(loc.Line()-1, 0), max(loc.Column(), 0), "matches: " + err.Error()})
		}
	}
	return out
}

// knownSpace reports whether a dotted name begins like evidence, rather than
// being a method call.
func knownSpace(name string) bool {
	space, _, _ := strings.Cut(name, ".")
	spaces := make([]string, 0, len(evidence))
	for n := range evidence {
		s, _, _ := strings.Cut(n, ".")
		if s == space {
			return true
		}
		spaces = append(spaces, s)
	}
	return nearest(space, spaces) != ""
}

// lineCol and offset turn places in a text into each other; all count from 0.
func lineCol(text string, at int) (line, col int) {
	before := text[:at]
	return strings.Count(before, "\n"), len(before) - strings.LastIndexByte(before, '\n') - 1
}

func offset(text string, line, col int) int {
	at := 0
	for ; line > 0; line-- {
		i := strings.IndexByte(text[at:], '\n')
		if i < 0 {
			break
		}
		at += i + 1
	}
	return min(at+col, len(text))
}
