package rules

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

const (
	// maxCost bounds an expression's evaluation in CEL's cost units.
	maxCost = 10_000
	// maxExpr bounds an expression's text in characters.
	maxExpr = 4096
)

var environment = sync.OnceValues(func() (*cel.Env, error) {
	opts := []cel.EnvOption{cel.ParserExpressionSizeLimit(maxExpr)}
	for name, e := range evidence {
		opts = append(opts, cel.Variable(name, e.typ))
	}
	return cel.NewEnv(opts...)
})

// expr is a CEL expression. Compiling takes half a millisecond, so that one of
// a trusted rule is compiled when a verdict depends on it.
type expr struct {
	text string
	want *cel.Type // that is needed, nil for any
	// checked is what parsing and checking the text gave at an earlier time; nil
	// when that is still to be done.
	checked []byte

	once  sync.Once
	prg   cel.Program
	uses  []string  // the evidence it names, sorted
	gives *cel.Type // what it evaluates to
	bad   exprErrors
}

// exprError is what is wrong with an expression, and where in its text.
type exprError struct {
	line, col int // both from 0
	msg       string
}

// exprErrors is all that is wrong with an expression.
type exprErrors []exprError

func (es exprErrors) Error() string {
	msgs := make([]string, len(es))
	for i, e := range es {
		msgs[i] = e.msg
	}
	return strings.Join(msgs, "; ")
}

func oneError(msg string) exprErrors { return exprErrors{{msg: msg}} }

// compile checks and compiles, once.
func (e *expr) compile() exprErrors {
	e.once.Do(func() { e.bad = e.compileNow() })
	return e.bad
}

func (e *expr) compileNow() exprErrors {
	env, err := environment()
	if err != nil {
		return oneError(err.Error())
	}
	ast, bad := e.ast(env)
	if bad != nil {
		return bad
	}
	if e.want != nil && !ast.OutputType().IsExactType(e.want) {
		return oneError(fmt.Sprintf("the expression gives %s, not %s", ast.OutputType(), e.want))
	}
	prg, err := env.Program(ast, cel.EvalOptions(cel.OptPartialEval), cel.CostLimit(maxCost))
	if err != nil {
		return oneError(err.Error())
	}
	e.prg, e.gives = prg, ast.OutputType()
	for _, r := range ast.NativeRep().ReferenceMap() {
		if _, ok := evidence[r.Name]; ok && !slices.Contains(e.uses, r.Name) {
			e.uses = append(e.uses, r.Name)
		}
	}
	slices.Sort(e.uses)
	return nil
}

// ast parses and checks the text, unless that was done before.
func (e *expr) ast(env *cel.Env) (*cel.Ast, exprErrors) {
	if e.checked != nil {
		if ast, err := restore(e.checked); err == nil {
			return ast, nil
		}
	}
	ast, iss := env.Compile(e.text)
	if iss.Err() != nil {
		return nil, explainIssues(e.text, iss)
	}
	if bad := badRegexes(ast); len(bad) > 0 {
		return nil, bad
	}
	return ast, nil
}

// evidence lists what it names; nothing if it does not compile.
func (e *expr) evidence() []string {
	if e.compile() != nil {
		return nil
	}
	return e.uses
}

// lazily compiles a regular expression that most runs do not need.
func lazily(text string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })
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
	if err := e.compile(); err != nil {
		return nil, fmt.Errorf("expression %q: %w", e.text, err)
	}
	var absent []*cel.AttributePatternType
	for _, n := range e.uses {
		if _, ok := vars[n]; !ok {
			absent = append(absent, cel.AttributePattern(n))
		}
	}
	pv, err := cel.PartialVars(vars, absent...)
	if err != nil {
		return nil, err
	}
	v, _, err := e.prg.Eval(pv)
	if err != nil {
		return nil, fmt.Errorf("expression %q: %w", e.text, err)
	}
	if u, ok := v.(*types.Unknown); ok {
		return nil, &errUnknown{decisive(u)}
	}
	return v, nil
}

// decisive lists the evidence that a result depends on and that is missing.
func decisive(u *types.Unknown) []string {
	var names []string
	for _, id := range u.IDs() {
		trails, _ := u.GetAttributeTrails(id)
		for _, t := range trails {
			if n := t.Variable(); !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	slices.Sort(names)
	return names
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
