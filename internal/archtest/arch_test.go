// Package archtest holds docs/architecture.md to the truth: its tables of
// packages and dependencies are compared with what go list finds. And it holds the
// rule language to what is measured: an expression may only name evidence that some
// code collects.
//
// Non-goal: it judges no design. An import that the table permits passes.
package archtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/phpwhy/phpwhy"

const doc = "docs/architecture.md"

// goPackage is the part of go list's output that is needed.
type goPackage struct {
	ImportPath                                  string
	GoFiles, Imports, TestImports, XTestImports []string
}

func TestPackageTableAgreesWithImports(t *testing.T) {
	documented := map[string][]string{}
	for _, row := range table(t, readDoc(t), "package", "job", "may import") {
		if _, twice := documented[row[0]]; twice {
			t.Errorf("%s: %s has two rows", doc, row[0])
		}
		if row[1] == "" {
			t.Errorf("%s: %s has no job", doc, row[0])
		}
		documented[row[0]] = list(row[2])
	}
	actual := map[string][]string{}
	for _, p := range goList(t) {
		if len(p.GoFiles) > 0 {
			actual[local(p.ImportPath)] = ours(p.Imports)
		}
	}
	for _, problem := range compare(documented, actual) {
		t.Errorf("%s: %s", doc, problem)
	}
}

func TestDependencyTableAgreesWithGoMod(t *testing.T) {
	documented := map[string][]string{}
	for _, row := range table(t, readDoc(t), "module", "used by", "why") {
		if row[2] == "" {
			t.Errorf("%s: no reason for %s", doc, row[0])
		}
		documented[row[0]] = list(row[1])
	}
	actual := map[string][]string{}
	packages := goList(t)
	for _, m := range required(t) {
		actual[m] = users(m, packages)
		if len(actual[m]) == 0 {
			t.Errorf("go.mod requires %s, and nothing imports it", m)
		}
	}
	for _, problem := range compare(documented, actual) {
		t.Errorf("%s: %s", doc, problem)
	}
}

func TestPublicPackagesImportNothingInternal(t *testing.T) {
	for _, p := range goList(t) {
		name := local(p.ImportPath)
		if !strings.HasPrefix(name, "symbolize") && !strings.HasPrefix(name, "rules") {
			continue
		}
		for _, i := range ours(p.Imports) {
			if strings.HasPrefix(i, "internal/") {
				t.Errorf("%s imports %s, which its users can't see", name, i)
			}
		}
	}
}

func TestCompareNamesEachDifference(t *testing.T) {
	for _, c := range []struct {
		name               string
		documented, actual map[string][]string
		want               []string
	}{
		{"equal", map[string][]string{"a": {"b", "c"}}, map[string][]string{"a": {"c", "b"}}, nil},
		{"no row", nil, map[string][]string{"a": nil}, []string{"a has no row"}},
		{"row of nothing", map[string][]string{"a": nil}, nil, []string{"there is no a"}},
		{"extra import", map[string][]string{"a": nil}, map[string][]string{"a": {"b"}},
			[]string{"a has b, which its row lacks"}},
		{"stale permission", map[string][]string{"a": {"b"}}, map[string][]string{"a": nil},
			[]string{"a's row has b, which is no longer so"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := compare(c.documented, c.actual); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestTableIsReadByItsHeader(t *testing.T) {
	text := "| x | y |\n| - | - |\n| 1 | 2 |\n\n| package | job |\n| --- | --- |\n| `a`, | b |\n| `c` | |\nend\n| no | row |\n"
	got := table(t, text, "package", "job")
	want := [][]string{{"a,", "b"}, {"c", ""}}
	if !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// compare reports where two maps of lists differ. The order within a list
// does not matter.
func compare(documented, actual map[string][]string) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(actual)) {
		row, ok := documented[name]
		if !ok {
			out = append(out, name+" has no row")
			continue
		}
		for _, i := range actual[name] {
			if !slices.Contains(row, i) {
				out = append(out, fmt.Sprintf("%s has %s, which its row lacks", name, i))
			}
		}
		for _, i := range row {
			if !slices.Contains(actual[name], i) {
				out = append(out, fmt.Sprintf("%s's row has %s, which is no longer so", name, i))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(documented)) {
		if _, ok := actual[name]; !ok {
			out = append(out, "there is no "+name)
		}
	}
	return out
}

// table returns the rows below the given header, without backquotes.
func table(t *testing.T, text string, header ...string) [][]string {
	t.Helper()
	var rows [][]string
	found := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			if found {
				break
			}
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(strings.ReplaceAll(cells[i], "`", ""))
		}
		switch {
		case slices.Equal(cells, header):
			found = true
		case found && len(cells) != len(header):
			t.Fatalf("%s: not %d cells: %s", doc, len(header), line)
		case found && strings.Trim(cells[0], "-") != "":
			rows = append(rows, cells)
		}
	}
	if !found {
		t.Fatalf("%s has no table with the header %q", doc, header)
	}
	return rows
}

// list splits a cell; a dash stands for nothing.
func list(cell string) []string {
	var out []string
	for s := range strings.SplitSeq(cell, ",") {
		if s = strings.TrimSpace(s); s != "" && s != "–" {
			out = append(out, s)
		}
	}
	return out
}

// users are the packages that import a module, or "tests".
func users(mod string, packages []goPackage) []string {
	uses := func(imports ...[]string) bool {
		return slices.ContainsFunc(slices.Concat(imports...), func(i string) bool {
			return i == mod || strings.HasPrefix(i, mod+"/")
		})
	}
	var out []string
	tests := false
	for _, p := range packages {
		if uses(p.Imports) {
			out = append(out, local(p.ImportPath))
		}
		tests = tests || uses(p.TestImports, p.XTestImports)
	}
	if len(out) == 0 && tests {
		out = []string{"tests"}
	}
	return out
}

func ours(imports []string) []string {
	var out []string
	for _, i := range imports {
		if strings.HasPrefix(i, module+"/") {
			out = append(out, local(i))
		}
	}
	return out
}

func local(path string) string { return strings.TrimPrefix(path, module+"/") }

func readDoc(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", doc))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// architectures are those phpwhy compiles for; what a package imports on either
// counts.
var architectures = []string{"amd64", "arm64"}

func goList(t *testing.T) []goPackage {
	t.Helper()
	all := map[string]*goPackage{}
	for _, arch := range architectures {
		t.Setenv("GOARCH", arch)
		dec := json.NewDecoder(strings.NewReader(run(t, "go", "list", "-json=ImportPath,GoFiles,Imports,TestImports,XTestImports", module+"/...")))
		for {
			var p goPackage
			err := dec.Decode(&p)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if all[p.ImportPath] == nil {
				all[p.ImportPath] = &goPackage{ImportPath: p.ImportPath}
			}
			all[p.ImportPath].add(&p)
		}
	}
	if len(all) == 0 {
		t.Fatal("go list found no package")
	}
	var out []goPackage
	for _, path := range slices.Sorted(maps.Keys(all)) {
		out = append(out, *all[path])
	}
	return out
}

// add joins what go list says of one package on two architectures.
func (p *goPackage) add(o *goPackage) {
	p.GoFiles = union(p.GoFiles, o.GoFiles)
	p.Imports = union(p.Imports, o.Imports)
	p.TestImports = union(p.TestImports, o.TestImports)
	p.XTestImports = union(p.XTestImports, o.XTestImports)
}

func union(a, b []string) []string {
	out := slices.Concat(a, b)
	slices.Sort(out)
	return slices.Compact(out)
}

// required lists the modules that go.mod requires directly.
func required(t *testing.T) []string {
	t.Helper()
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal([]byte(run(t, "go", "mod", "edit", "-json")), &mod); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, r := range mod.Require {
		if !r.Indirect {
			out = append(out, r.Path)
		}
	}
	return out
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, errs.String())
	}
	return string(out)
}
