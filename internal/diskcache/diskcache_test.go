package diskcache

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func env(m map[string]string) func(string) (string, bool) {
	return func(k string) (string, bool) { v, ok := m[k]; return v, ok }
}

func TestSavedIsLoadedByItsKeyAlone(t *testing.T) {
	s := At(filepath.Join(t.TempDir(), "a", "b"))
	if s.Load("k") != nil {
		t.Error("an empty store has something")
	}
	if err := s.Save("k", []byte("data")); err != nil {
		t.Fatal(err)
	}
	if got := s.Load("k"); string(got) != "data" {
		t.Errorf("%q", got)
	}
	if s.Load("other") != nil {
		t.Error("another key has it")
	}
	if err := os.Rename(s.path("k"), s.path("other")); err != nil || s.Load("other") != nil {
		t.Errorf("a renamed file is another's answer (%v)", err)
	}
	if st, err := os.Stat(s.path("other")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

func TestDamagedOrForeignFilesAreIgnored(t *testing.T) {
	for name, spoil := range map[string]func(s Store, path string) error{
		"a flipped byte": func(_ Store, path string) error {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			b[len(b)-1] ^= 1
			return os.WriteFile(path, b, 0o600)
		},
		"cut off":                  func(_ Store, path string) error { return os.Truncate(path, int64(len(magic)+5)) },
		"empty":                    func(_ Store, path string) error { return os.Truncate(path, 0) },
		"another version":          func(_ Store, path string) error { return os.WriteFile(path, []byte("phpwhy cache 0\n"), 0o600) },
		"others may write it":      func(_ Store, path string) error { return os.Chmod(path, 0o666) },
		"others may write beside":  func(s Store, _ string) error { return os.Chmod(s.dir, 0o777) },
		"too large":                func(_ Store, path string) error { return os.Truncate(path, maxEntry+1) },
		"someone else's":           func(_ Store, path string) error { return os.Chown(path, 12345, -1) },
		"someone else's directory": func(s Store, _ string) error { return os.Chown(s.dir, 12345, -1) },
		"a link": func(_ Store, path string) error {
			if err := os.Rename(path, path+".real"); err != nil {
				return err
			}
			return os.Symlink(path+".real", path)
		},
		"a directory": func(_ Store, path string) error {
			if err := os.Remove(path); err != nil {
				return err
			}
			return os.Mkdir(path, 0o700)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := At(filepath.Join(t.TempDir(), "c"))
			if err := s.Save("k", []byte("data")); err != nil {
				t.Fatal(err)
			}
			if err := spoil(s, s.path("k")); os.IsPermission(err) {
				t.Skip("only root can give files away")
			} else if err != nil {
				t.Fatal(err)
			}
			if got := s.Load("k"); got != nil {
				t.Errorf("%q was believed", got)
			}
		})
	}
}

func TestALinkedDirectoryIsNotWrittenTo(t *testing.T) {
	real := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	if err := At(link).Save("k", []byte("data")); err == nil {
		t.Error("saved through a link")
	}
	if ents, _ := os.ReadDir(real); len(ents) > 0 {
		t.Errorf("%v", ents)
	}
}

func TestStoreIsBounded(t *testing.T) {
	s := At(t.TempDir())
	big := bytes.Repeat([]byte{1}, maxEntry-1000)
	for i := range maxTotal/maxEntry + 5 {
		if err := s.Save(fmt.Sprint(i), big); err != nil {
			t.Fatal(err)
		}
		old := time.Now().Add(time.Duration(i-1000) * time.Minute)
		if err := os.Chtimes(s.path(fmt.Sprint(i)), old, old); err != nil {
			t.Fatal(err)
		}
	}
	total := int64(0)
	ents, _ := os.ReadDir(s.dir)
	for _, e := range ents {
		st, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		total += st.Size()
	}
	if total > maxTotal {
		t.Errorf("%d bytes", total)
	}
	if s.Load("0") != nil || s.Load(fmt.Sprint(maxTotal/maxEntry+4)) == nil {
		t.Error("the oldest should go, the newest stay")
	}
	if err := s.Save("huge", make([]byte, maxEntry)); err != nil || s.Load("huge") != nil {
		t.Errorf("what is too large was kept (%v)", err)
	}
}

func TestWhereTheStoreIs(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{Variable: "/x", "XDG_CACHE_HOME": "/y"}, "/x"},
		{map[string]string{Variable: "", "XDG_CACHE_HOME": "/y"}, ""},
		{map[string]string{"XDG_CACHE_HOME": "/y", "HOME": "/z"}, "/y/phpwhy"},
	} {
		if got := Open(env(c.env)).dir; got != c.want {
			t.Errorf("%v: %q, want %q", c.env, got, c.want)
		}
	}
	if err := At("").Save("k", []byte("x")); err != nil || At("").Load("k") != nil {
		t.Errorf("off: %v", err)
	}
}

func TestAnotherBuildStartsAnew(t *testing.T) {
	one, two := filepath.Join(t.TempDir(), "p"), filepath.Join(t.TempDir(), "p")
	for p, text := range map[string]string{one: "old", two: "newer"} {
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := At(t.TempDir())
	if err := s.For(one).Save("k", []byte("data")); err != nil {
		t.Fatal(err)
	}
	if s.For(one).Load("k") == nil {
		t.Error("the same build has lost it")
	}
	if s.For(two).Load("k") != nil || s.Load("k") != nil {
		t.Error("another build has it")
	}
	if s.For(filepath.Join(t.TempDir(), "none")) != (Store{}) {
		t.Error("a program that can't be told from others keeps something")
	}
}
