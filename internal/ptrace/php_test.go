package ptrace

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// phps are the interpreters at hand: the distribution's, and the one that
// testdata/php builds.
func phps(t *testing.T) map[string]string {
	t.Helper()
	dir := os.Getenv("PHPWHY_PHP_DIR")
	if dir == "" {
		dir, _ = filepath.Abs("../../.cache/php/8.2-nts")
	}
	return map[string]string{"distribution": "/usr/bin/php8.2", "with DWARF": filepath.Join(dir, "bin", "php")}
}

func TestRealPHPIsStoppedAndLeftAsItWas(t *testing.T) {
	for name, php := range phps(t) {
		for _, engine := range engines {
			t.Run(name+"/"+engine, func(t *testing.T) {
				if _, err := os.Stat(php); err != nil {
					if os.Getenv("CI") == "true" {
						t.Fatal(err)
					}
					t.Skipf("%s is missing", php)
				}
				cmd := exec.Command(php, "-n", "-d", "memory_limit=-1", "-r",
					`while (true) { $foo = ""; for ($i = 0; $i < 20000000; $i++) $foo .= "a"; }`)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
				time.Sleep(200 * time.Millisecond)
				pid := cmd.Process.Pid
				bps := at(t, pid, "mmap", "mremap")
				var last uint64
				chain := 0
				res, err := Observe(t.Context(), pid, Options{Engine: engine, Breakpoints: bps, MaxStops: 100, For: 20 * time.Second},
					HandlerFunc(func(s *Stop) Verdict {
						old, _ := s.Regs.Arg(1)
						to, _ := s.Regs.Arg(2)
						if s.Breakpoint == 1 && old == last && to == old+4096 {
							chain++
						}
						last = to
						return Continue
					}))
				if err != nil || res.Ended != EndStops || chain < 80 {
					t.Errorf("%+v, %v, %d steps of 4096 bytes", res, err, chain)
				}
				w := &worker{t: t, pid: pid, shared: make([]byte, 4096)}
				w.mustBeClean()
				if !alive(pid) {
					t.Error("php has died")
				}
			})
		}
	}
}
