package proc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/testphp"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// contained is a PHP in a container whose /links holds what is asked for.
func contained(t *testing.T, links func(dir string) error) *Process {
	t.Helper()
	tree := testphp.Tree(t, []string{testphp.Stripped(t)}, map[string]string{
		"/srv/sleep.php": testphp.Hang(t, "sleep.php"), "/usr/share/zoneinfo/UTC": "/usr/share/zoneinfo/UTC",
	})
	dir := filepath.Join(tree, "links")
	if err := errors.Join(os.Mkdir(dir, 0o755), links(dir)); err != nil {
		t.Fatal(err)
	}
	c := testphp.StartContainer(t, testphp.Isolations[0], []string{tree}, testphp.Stripped(t), "-n", "/srv/sleep.php")
	p, err := Open(c.PID)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Whoever is root in a container makes the paths there.
func TestPathsOfAContainerLeadNowhereElse(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("of the host"), 0o600); err != nil {
		t.Fatal(err)
	}
	up := "/links/../../../../../../../../.." + secret
	p := contained(t, func(dir string) error {
		return errors.Join(
			os.WriteFile(filepath.Join(dir, "file"), []byte("of the container"), 0o644),
			os.Symlink("file", filepath.Join(dir, "beside")),
			os.Symlink("/links/file", filepath.Join(dir, "absolute")),
			os.Symlink(secret, filepath.Join(dir, "out")),
			os.Symlink("../../../../../../../.."+secret, filepath.Join(dir, "up")),
			os.Symlink("/proc/self/root"+secret, filepath.Join(dir, "magic")),
			os.Symlink("loop", filepath.Join(dir, "loop")),
			syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o644),
			os.Mkdir(filepath.Join(dir, "folder"), 0o755),
		)
	})
	for _, tt := range []struct {
		path string
		ok   bool
		old  bool // also without openat2
	}{
		{"/links/file", true, true}, {"/links/beside", true, true}, {"/links/absolute", true, false}, {"/links/../links/file", true, true},
		{"/links/out", false, false}, {"/links/up", false, false}, {"/links/magic", false, false}, {up, false, false},
		{"/links/loop", false, false}, {"/links/fifo", false, false}, {"/links/folder", false, false}, {"/dev/null", false, false},
		{"/links/none", false, false}, {"", false, false},
	} {
		for name, open := range map[string]struct {
			f  func(string) (*os.File, error)
			ok bool
		}{"openat2": {p.OpenInRoot, tt.ok}, "without": {func(name string) (*os.File, error) { return openBeneath(p.path("root"), name) }, tt.old}} {
			t.Run(name+tt.path, func(t *testing.T) {
				done := time.AfterFunc(10*time.Second, func() { panic("opening " + tt.path + " waits") })
				defer done.Stop()
				f, err := open.f(tt.path)
				if (err == nil) != open.ok {
					t.Fatalf("got %v, want it to open: %v", err, open.ok)
				}
				if err != nil {
					return
				}
				defer f.Close()
				b := make([]byte, 64)
				if n, _ := f.Read(b); string(b[:n]) != "of the container" {
					t.Errorf("reads %q", b[:n])
				}
			})
		}
	}
}

func TestThreadsInsideKnowsThemByTheirNumbersInTheContainer(t *testing.T) {
	p := contained(t, func(string) error { return nil })
	got, err := p.ThreadsInside()
	if err != nil || len(got) != 1 || got[1] != p.PID {
		t.Errorf("got %v, %v, want 1 to be %d", got, err, p.PID)
	}
	self, err := Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := self.ThreadsInside(); err != nil || got[self.PID] != self.PID || len(got) < 2 {
		t.Errorf("in our own namespace: %v, %v", got, err)
	}
}

func TestTailsOfAPathAreTriedFromTheLongest(t *testing.T) {
	for path, want := range map[string][]string{
		"/srv/jail/bin/php": {"/srv/jail/bin/php", "/jail/bin/php", "/bin/php", "/php"},
		"/php":              {"/php"},
		"":                  {""},
		"[vdso]":            {"[vdso]"},
	} {
		if got := tails(path); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", path, got, want)
		}
	}
	if n := len(tails(strings.Repeat("/a", 1000))); n != maxTails {
		t.Errorf("%d tails of a long path, the limit is %d", n, maxTails)
	}
}

// Where numbers don't tell whether a file is the mapped one, its bytes do.
func TestAFileCountsAsMappedWhenItsCodeIsTheSame(t *testing.T) {
	src, err := os.ReadFile(testphp.Stripped(t))
	if err != nil {
		t.Fatal(err)
	}
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "sleep.php"))
	p, err := Open(w.PID)
	if err != nil {
		t.Fatal(err)
	}
	maps, err := p.Mappings()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(maps, func(m remote.Mapping) bool { return m.Exec && m.Path == testphp.Stripped(t) })
	if i < 0 {
		t.Fatal("php is not mapped")
	}
	m := maps[i]
	damage := func(from, n int) func([]byte) []byte {
		return func(b []byte) []byte {
			for j := range n {
				b[int(m.Offset)+from+j] ^= 0xff
			}
			return b
		}
	}
	for _, tt := range []struct {
		name   string
		change func([]byte) []byte
		ok     bool
	}{
		{"a copy", func(b []byte) []byte { return b }, true},
		{"a copy with breakpoints", damage(4096, 4), true},
		{"other code at the end", damage(int(m.End-m.Start)-8192, 4096), false},
		{"other code throughout", damage(0, 8192), false},
		{"a shorter file", func(b []byte) []byte { return b[:m.Offset] }, false},
		{"an empty file", func([]byte) []byte { return nil }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "php")
			if err := os.WriteFile(path, tt.change(slices.Clone(src)), 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := p.same(m)(os.Open(path))
			if (err == nil) != tt.ok {
				t.Fatalf("got %v, want it accepted: %v", err, tt.ok)
			}
			if err == nil {
				_ = f.Close()
			} else if !strings.Contains(err.Error(), fmt.Sprint(m.Inode)) {
				t.Errorf("%q does not name the mapped inode", err)
			}
		})
	}
}
