// Package testphp runs real PHP for tests: Debian's stripped one and one with
// DWARF that testdata/php/build makes.
//
// Contract: what a test starts here ends with that test, and it can't eat the
// machine: address space and CPU time are limited, should even the test process
// be killed. What is missing fails a test under CI=true; elsewhere it skips
// the test and names what to install.
//
// Hazard: a worker must not be waited for while a test traces it, because a
// wait in this process takes the tracee's stops too. Nothing here waits before
// the test's cleanup.
//
// Non-goal: it installs and builds nothing; make test does.
package testphp

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Root returns the checkout: the nearest directory above the test's with a go.mod.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("testphp: no go.mod above the working directory")
		}
		dir = up
	}
}

// Hang returns the path of a script in testdata/hang, "mem.string-concat.php".
func Hang(t testing.TB, name string) string {
	t.Helper()
	p := filepath.Join(Root(t), "testdata", "hang", name)
	if _, err := os.Stat(p); err != nil {
		t.Fatal(err)
	}
	return p
}

// Missing ends the test because the machine lacks what: a failure under
// CI=true, where everything must be there, and a skip elsewhere.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("missing: %s", what)
	}
	t.Skipf("missing: %s (make test installs it)", what)
}

// Require returns the path of a tool such as gdb.
func Require(t testing.TB, tool string) string {
	t.Helper()
	p, err := exec.LookPath(tool)
	if err != nil {
		Missing(t, tool)
	}
	return p
}

// Stripped returns Debian's php, without symbol table and DWARF.
func Stripped(t testing.TB) string {
	t.Helper()
	return executable(t, "/usr/bin/php8.2", "Debian's php8.2-cli")
}

// StrippedFPM returns Debian's php-fpm.
func StrippedFPM(t testing.TB) string {
	t.Helper()
	return executable(t, "/usr/sbin/php-fpm8.2", "Debian's php8.2-fpm")
}

// DWARF returns a php 8.2 with symbols and DWARF.
func DWARF(t testing.TB) string {
	t.Helper()
	return built(t, "bin/php")
}

// DWARFFPM returns a php-fpm 8.2 with symbols and DWARF.
func DWARFFPM(t testing.TB) string {
	t.Helper()
	return built(t, "sbin/php-fpm")
}

// Builds returns the installation directories of all PHPs with DWARF that
// testdata/php/build has made, and of those that $PHPWHY_PHPS names, separated
// by colons: 8.2-nts, 8.4-zts and so on. At least those of make test are there,
// and under $PHPWHY_MATRIX=1 all of make matrix.
func Builds(t testing.TB) []string {
	t.Helper()
	cache := filepath.Join(Root(t), ".cache", "php")
	need := []string{"8.2-nts", "8.4-zts"}
	if os.Getenv("PHPWHY_MATRIX") == "1" {
		need = nil
		for _, version := range []string{"7.4", "8.2", "8.4"} {
			for _, variant := range []string{"nts", "zts", "nts-debug"} {
				need = append(need, version+"-"+variant)
			}
		}
	}
	for _, name := range need {
		executable(t, filepath.Join(cache, name, "bin/php"), "a PHP with DWARF; run testdata/php/build "+strings.Replace(name, "-", " ", 1))
	}
	done, err := filepath.Glob(filepath.Join(cache, "*", ".recipe"))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range done {
		out = append(out, filepath.Dir(f))
	}
	return append(out, filepath.SplitList(os.Getenv("PHPWHY_PHPS"))...)
}

func built(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("PHPWHY_PHP_DIR")
	if dir == "" {
		dir = filepath.Join(Root(t), ".cache", "php", "8.2-nts")
	}
	return executable(t, filepath.Join(dir, name), "a PHP with DWARF; run testdata/php/build 8.2 nts")
}

func executable(t testing.TB, path, what string) string {
	t.Helper()
	if i, err := os.Stat(path); err != nil || i.IsDir() || i.Mode()&0o111 == 0 {
		Missing(t, path+": "+what)
	}
	return path
}
