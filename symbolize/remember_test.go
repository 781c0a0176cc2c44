package symbolize

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/phpwhy/phpwhy/symbolize/objfile"
)

// shelf is a store in memory that counts what it hands out.
type shelf struct {
	kept   map[string][]byte
	loaded []string
}

func (s *shelf) Load(key string) []byte {
	b := s.kept[key]
	if b != nil {
		s.loaded = append(s.loaded, key)
	}
	return b
}

func (s *shelf) Save(key string, data []byte) error {
	s.kept[key] = append([]byte(nil), data...)
	return nil
}

// sections lists those of which inflated bytes are kept.
func (s *shelf) sections() (names []string) {
	for key := range s.kept {
		if i := strings.LastIndexByte(key, '\n'); strings.HasPrefix(key[i+1:], ".debug_") {
			names = append(names, key[i+1:])
		}
	}
	return names
}

// stripped builds a program whose debug information is in a compressed file of its
// own, and returns the folder for debug files and the program.
func stripped(t *testing.T) (root, prog string) {
	t.Helper()
	for _, tool := range []string{"gcc", "objcopy"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("%s is missing", tool)
			}
			t.Skipf("%s is missing", tool)
		}
	}
	dir := t.TempDir()
	var src []string
	for u := range 20 { // each file is a unit
		var c strings.Builder
		for i := range 200 {
			fmt.Fprintf(&c, "struct s%d_%d { int a; }; int f%d_%d(struct s%d_%d *p, int q) { int r = q * %d; return r + p->a; }\n", u, i, u, i, u, i, i)
		}
		if u == 0 {
			c.WriteString("int main(void) { return 0; }\n")
		}
		p := filepath.Join(dir, fmt.Sprintf("u%02d.c", u))
		if err := os.WriteFile(p, []byte(c.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		src = append(src, p)
	}
	prog = filepath.Join(dir, "prog")
	run := func(argv ...string) {
		t.Helper()
		if b, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", argv[0], err, b)
		}
	}
	run(append([]string{"gcc", "-g", "-O1", "-Wl,--build-id", "-o", prog}, src...)...)
	f, err := objfile.OpenPath(prog)
	if err != nil {
		t.Fatal(err)
	}
	id := f.BuildID()
	_ = f.Close()
	root = filepath.Join(dir, "debug")
	debug := filepath.Join(root, ".build-id", id[:2], id[2:]+".debug")
	if err := os.MkdirAll(filepath.Dir(debug), 0o700); err != nil {
		t.Fatal(err)
	}
	run("objcopy", "--only-keep-debug", "--compress-debug-sections=zlib", prog, debug)
	run("objcopy", "--strip-all", prog)
	return root, prog
}

// TestNothingIsInflatedThatHasBeenBefore: a run that finds its answers kept loads
// nothing else; one that asks about other places loads what was inflated.
func TestNothingIsInflatedThatHasBeenBefore(t *testing.T) {
	root, prog := stripped(t)
	s := &shelf{kept: make(map[string][]byte)}
	ask := func(name string) (inflated []string) {
		t.Helper()
		f, err := objfile.OpenPath(prog)
		if err != nil {
			t.Fatal(err)
		}
		m := newModule(prog, f, objfile.Search{Roots: []string{root}})
		m.store = s
		defer func() { _ = f.Close() }()
		s.loaded = nil
		sym, ok := m.Symbol(name)
		if !ok {
			t.Fatalf("no symbol %s", name)
		}
		if fs := m.functions(sym.Value + 1); len(fs) != 1 || fs[0].Name != name || fs[0].Line == 0 {
			t.Errorf("%s: %+v", name, fs)
		}
		m.debug.EachInflated(func(section string, _ []byte) { inflated = append(inflated, section) })
		if err := m.keep(); err != nil {
			t.Fatal(err)
		}
		_ = m.debug.Close()
		return inflated
	}
	if got := ask("f15_7"); len(got) < 3 || len(s.sections()) != len(got) {
		t.Errorf("the first run inflates %v and keeps %v", got, s.sections())
	}
	if got := ask("f15_7"); len(got) != 0 || len(s.loaded) != 1 {
		t.Errorf("the same question inflates %v and loads %q", got, s.loaded)
	}
	if got := ask("f15_4"); len(got) != 0 || len(s.loaded) < 3 {
		t.Errorf("another place inflates %v and loads %q", got, s.loaded)
	}
	if got := ask("f19_3"); len(got) == 0 {
		t.Error("a place further on needs no more than there was")
	}
	if got := ask("f19_4"); len(got) != 0 {
		t.Errorf("what was added is not kept: %v is inflated", got)
	}
}
