package rules

import (
	"errors"
	"fmt"
	"regexp"
	"sort"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// maxCost bounds an expression's evaluation in CEL's cost units.
const maxCost = 10_000

var environment = sync.OnceValues(func() (*cel.Env, error) {
	opts := make([]cel.EnvOption, 0, len(evidence))
	for name, e := range evidence {
		opts = append(opts, cel.Variable(name, e.typ))
	}
	return cel.NewEnv(opts...)
})

// expr is a compiled CEL expression.
type expr struct {
	text string
	prg  cel.Program
	uses []string // the evidence it names
}

// word finds dotted names in an expression.
var word = regexp.MustCompile(`[A-Za-z_][A-Za-z_0-9]*(?:\.[A-Za-z_][A-Za-z_0-9]*)+`)

// quoted finds string literals, in which a dotted word is no name.
var quoted = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'`)

// compileExpr checks and compiles. want is the type that is needed, nil for any.
// at is the column in text at which the problem lies, from 0.
func compileExpr(text string, want *cel.Type) (e *expr, at int, err error) {
	env, err := environment()
	if err != nil {
		return nil, 0, err
	}
	ast, iss := env.Compile(text)
	if iss != nil && iss.Err() != nil {
		for _, p := range iss.Errors() {
			at = p.Location.Column()
			err = errors.New(p.Message)
			break
		}
		plain := quoted.ReplaceAllStringFunc(text, func(s string) string { return strings.Repeat(" ", len(s)) })
		for _, loc := range word.FindAllStringIndex(plain, -1) {
			name := plain[loc[0]:loc[1]]
			if _, ok := evidence[name]; !ok && knownSpace(name) {
				return nil, loc[0], fmt.Errorf("no evidence is called %s%s", name, didYouMean(name, evidenceNames()))
			}
		}
		return nil, at, err
	}
	if want != nil && !ast.OutputType().IsAssignableType(want) {
		return nil, 0, fmt.Errorf("the expression gives %s, not %s", ast.OutputType(), want)
	}
	prg, err := env.Program(ast, cel.EvalOptions(cel.OptPartialEval), cel.CostLimit(maxCost))
	if err != nil {
		return nil, 0, err
	}
	e = &expr{text: text, prg: prg}
	plain := quoted.ReplaceAllString(text, `""`)
	for _, name := range word.FindAllString(plain, -1) {
		if _, ok := evidence[name]; ok {
			e.uses = append(e.uses, name)
		}
	}
	sort.Strings(e.uses)
	return e, 0, nil
}

// knownSpace reports whether a dotted name begins like evidence, rather than
// being a method call.
func knownSpace(name string) bool {
	space, _, _ := strings.Cut(name, ".")
	for n := range evidence {
		if strings.HasPrefix(n, space+".") {
			return true
		}
	}
	return nearest(space, []string{"chain", "proc", "stack", "rate", "event", "php", "pool", "lock", "fd"}) != ""
}

// errUnknown says which evidence an expression lacked.
type errUnknown struct{ names []string }

func (e *errUnknown) Error() string {
	out := make([]string, len(e.names))
	for i, n := range e.names {
		out[i] = missing(n)
	}
	return strings.Join(out, ", ")
}

// eval evaluates with the evidence at hand. Evidence that is missing only
// matters when the result depends on it.
func (e *expr) eval(vars map[string]any) (ref.Val, error) {
	var unknown []*cel.AttributePatternType
	var names []string
	for _, n := range e.uses {
		if _, ok := vars[n]; !ok {
			unknown = append(unknown, cel.AttributePattern(n))
			names = append(names, n)
		}
	}
	pv, err := cel.PartialVars(vars, unknown...)
	if err != nil {
		return nil, err
	}
	v, _, err := e.prg.Eval(pv)
	if err != nil {
		return nil, fmt.Errorf("expression %q: %w", e.text, err)
	}
	if types.IsUnknown(v) {
		return nil, &errUnknown{names}
	}
	return v, nil
}

// truth evaluates a condition.
func (e *expr) truth(vars map[string]any) (bool, error) {
	v, err := e.eval(vars)
	if err != nil {
		return false, err
	}
	b, ok := v.Value().(bool)
	if !ok {
		return false, fmt.Errorf("expression %q gave no truth value", e.text)
	}
	return b, nil
}
