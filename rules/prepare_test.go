package rules

import (
	"bytes"
	"errors"
	"os"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"

	"github.com/phpwhy/phpwhy/rules/builtin"
)

func TestTheCheckedInPreparedRulesAreThoseOfTheFiles(t *testing.T) {
	const file = "builtin/prepared.bin"
	want, problems := Prepare(builtin.FS)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if *update {
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, have) {
		t.Errorf("%s is stale; run make generate", file)
	}
}

func TestPreparedNodesAreThoseOfTheText(t *testing.T) {
	p, err := readPrepared(builtin.Prepared)
	if err != nil {
		t.Fatal(err)
	}
	set, _ := Load(builtin.FS)
	if len(p.docs) != len(set.Rules()) || len(p.docs) < 40 {
		t.Errorf("%d files are prepared, there are %d rules", len(p.docs), len(set.Rules()))
	}
	for _, r := range set.Rules() {
		have := p.doc(r.File, []byte(r.text))
		if have == nil {
			t.Errorf("%s is not prepared", r.File)
			continue
		}
		want := (&decoder{}).document([]byte(r.text))
		// Comments are not kept: nothing reads them.
		var strip func(*yaml.Node)
		strip = func(n *yaml.Node) {
			n.HeadComment, n.LineComment, n.FootComment = "", "", ""
			if n.Content == nil {
				n.Content = []*yaml.Node{}
			}
			for _, c := range n.Content {
				strip(c)
			}
		}
		strip(want)
		strip(have)
		if diff := cmp.Diff(want, have); diff != "" {
			t.Errorf("%s: %s", r.File, diff)
		}
		if err := r.eachExpr(func(e *expr) error {
			if p.checked(e.text) == nil {
				return errors.New(e.text)
			}
			return nil
		}); err != nil {
			t.Errorf("%s: not prepared: %v", r.File, err)
		}
	}
}

// prepareOne makes a pack of one file and the source that has it.
func prepareOne(t *testing.T, text string) Source {
	t.Helper()
	dir := fstest.MapFS{"a.yaml": {Data: []byte(text)}}
	b, problems := Prepare(dir)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return Source{FS: dir, Trusted: true, Prepared: b}
}

const preparedRule = `schema: phpwhy/rule/v1
id: a.b
title: before
severity: low
message: m
match: {expr: stack.depth > 1}
`

func TestAFileThatHasChangedSinceItWasPreparedIsReadAnew(t *testing.T) {
	src := prepareOne(t, preparedRule)
	src.FS = fstest.MapFS{"a.yaml": {Data: bytes.Replace([]byte(preparedRule), []byte("before"), []byte("behind"), 1)}}
	set, problems := LoadSources(src)
	if len(problems) > 0 || set.Rule("a.b").Title != "behind" {
		t.Errorf("%v, %+v", problems, set.Rule("a.b"))
	}
}

// What is prepared is really used: a node that says something else than the text.
func TestPreparedNodesAreReadInsteadOfTheText(t *testing.T) {
	src := prepareOne(t, preparedRule)
	src.Prepared = bytes.Replace(src.Prepared, []byte("before"), []byte("beyond"), 1)
	set, problems := LoadSources(src)
	if len(problems) > 0 || set.Rule("a.b").Title != "beyond" {
		t.Errorf("%v, %+v", problems, set.Rule("a.b"))
	}
}

func TestPreparedRulesThatAreDamagedCostNothingButTime(t *testing.T) {
	src := prepareOne(t, preparedRule)
	whole := src.Prepared
	for n := range whole {
		src.Prepared = whole[:n]
		set, problems := LoadSources(src)
		if len(problems) > 0 || set.Rule("a.b") == nil || set.Rule("a.b").Title != "before" {
			t.Fatalf("cut to %d bytes: %v", n, problems)
		}
	}
}

// FuzzPrepared: whatever stands there, reading it ends, and what it gives is a tree
// that can be walked.
func FuzzPrepared(f *testing.F) {
	b, problems := Prepare(fstest.MapFS{"a.yaml": {Data: []byte(preparedRule)}})
	if len(problems) > 0 {
		f.Fatal(problems)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := readPrepared(b)
		if err != nil {
			return
		}
		for _, d := range p.docs {
			if d.root == nil || nodes(d.root) == 0 {
				t.Error("a file without nodes")
			}
		}
		for _, c := range p.exprs {
			_, _ = restore(c)
		}
	})
}

func BenchmarkLoadingTheBuiltInRules(b *testing.B) {
	for _, c := range []struct {
		name string
		src  Source
	}{
		{"checked", Source{FS: builtin.FS}},
		{"trusted", Source{FS: builtin.FS, Trusted: true}},
		{"prepared", Source{FS: builtin.FS, Trusted: true, Prepared: builtin.Prepared}},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				if _, problems := LoadSources(c.src); len(problems) > 0 {
					b.Fatal(problems)
				}
			}
		})
	}
}
