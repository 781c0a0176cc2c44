package observe

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/ptrace"
	"github.com/phpwhy/phpwhy/internal/target"
	"github.com/phpwhy/phpwhy/internal/testphp"
)

// A worker may end, or become another program, at any moment between the look at
// its mappings and the first stop: its files can't be opened then.
func TestAProcessThatChangesWhileItIsOpenedIsToldAsSuch(t *testing.T) {
	needUprobes(t)
	const code = `<?php echo "ready\n"; while (!file_exists(__DIR__ . '/sign')) { usleep(1000); clearstatcache(); } pcntl_exec('/usr/bin/sleep', ['1000']);`
	steps := map[string]func(live *target.Live, change func()) error{
		"before its modules are known": func(live *target.Live, change func()) error {
			change()
			_, err := New().open(live)
			return err
		},
		"before its functions are looked for": func(live *target.Live, change func()) error {
			s, err := New().open(live)
			if err != nil {
				return err
			}
			change()
			_, err = s.prepare(Options{Break: []string{"no_such_function"}})
			return err
		},
		"before it is frozen": func(live *target.Live, change func()) error {
			s, err := New().open(live)
			if err != nil {
				return err
			}
			change()
			_, err = s.dump(t.Context())
			return err
		},
		"before it is read without a stop": func(live *target.Live, change func()) error {
			s, err := New().open(live)
			if err != nil {
				return err
			}
			change()
			_, err = s.sample(t.Context())
			return err
		},
		"before the kernel is asked for probes": func(live *target.Live, change func()) error {
			s, err := New().open(live)
			if err != nil {
				return err
			}
			po, err := s.prepare(Options{Engine: EngineUprobe, Break: []string{"mmap"}, For: time.Second})
			if err != nil {
				return err
			}
			change()
			res, err := s.probe(t.Context(), po)
			if err == nil && res.Ended == ptrace.EndExec {
				return proc.ErrReplaced
			}
			return err
		},
	}
	for when, step := range steps {
		for what, want := range map[string]error{"ends": proc.ErrNoProcess, "executes another program": proc.ErrReplaced} {
			t.Run(what+" "+when, func(t *testing.T) {
				dir := t.TempDir()
				script := filepath.Join(dir, "exec.php")
				if err := os.WriteFile(script, []byte(code), 0o600); err != nil {
					t.Fatal(err)
				}
				w := testphp.Start(t, testphp.Stripped(t), script)
				live, err := target.Open(w.PID)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = live.Close() })
				changed := func() bool { return !live.Alive() }
				change := func() { _ = syscall.Kill(w.PID, syscall.SIGKILL) }
				if errors.Is(want, proc.ErrReplaced) {
					changed = func() bool {
						exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", w.PID))
						return filepath.Base(exe) == "sleep"
					}
					change = func() { _ = os.WriteFile(filepath.Join(dir, "sign"), nil, 0o600) }
				}
				err = step(live, func() {
					change()
					for range 5000 {
						if changed() {
							return
						}
						time.Sleep(time.Millisecond)
					}
					t.Fatal("it did not change")
				})
				if !errors.Is(err, want) {
					t.Errorf("%v, want %v", err, want)
				}
			})
		}
	}
}
