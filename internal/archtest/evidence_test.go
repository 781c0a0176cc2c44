package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/phpwhy/phpwhy/rules"
)

// collectors are the packages that collect evidence or derive it.
var collectors = []string{"internal/observe", "internal/triage", "rules"}

// TestAllEvidenceIsCollected: a name that lint takes and nothing sets would make every
// rule that asks for it undetermined, on every worker.
func TestAllEvidenceIsCollected(t *testing.T) {
	set := make(map[string]bool)
	for _, dir := range collectors {
		files, err := filepath.Glob(filepath.Join("../..", dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatal(dir, err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			maps.Copy(set, namesSet(f))
		}
	}
	known := make(map[string]bool)
	for _, e := range rules.KnownEvidence() {
		known[e.Name] = true
		if !set[e.Name] {
			t.Errorf("%s is evidence that expressions know, and nothing in %s sets it", e.Name, strings.Join(collectors, ", "))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(set)) {
		if !known[name] {
			t.Errorf("%s is set, and no expression knows it", name)
		}
	}
}

// evidenceName is how evidence is called; of what it is about, to tell it from rules.
var evidenceName = regexp.MustCompile(`^(event|chain|rate|proc|stack|fd|wait|lock|child|pool|php|hash)\.[a-z_]+$`)

// namesSet are the names that a file gives values: m["a.b"] = v, or a map's literal
// {"a.b": v}. The table of what expressions know is neither.
func namesSet(f *ast.File) map[string]bool {
	out := make(map[string]bool)
	add := func(e ast.Expr) {
		if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if s, err := strconv.Unquote(lit.Value); err == nil && evidenceName.MatchString(s) {
				out[s] = true
			}
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ValueSpec:
			if n.Names[0].Name == "evidence" {
				return false
			}
		case *ast.AssignStmt:
			for _, e := range n.Lhs {
				if x, ok := e.(*ast.IndexExpr); ok {
					add(x.Index)
				}
			}
		case *ast.KeyValueExpr:
			add(n.Key)
		}
		return true
	})
	return out
}

func TestNamesSetAreFound(t *testing.T) {
	const src = `package p
var evidence = map[string]int{"proc.table": 1}
func f(m map[string]any, ok bool) {
	m["proc.one"], m["proc.two"] = 1, m["proc.read"]
	for k, v := range map[string]int{"fd.three": 3} { m[k] = v }
	if ok { w.m["lock.four"] = "mem.rule" }
	set("php.argument")
}`
	f, err := parser.ParseFile(token.NewFileSet(), "p.go", src, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := slices.Sorted(maps.Keys(namesSet(f))), []string{"fd.three", "lock.four", "proc.one", "proc.two"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
