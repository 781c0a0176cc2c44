package ptrace

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestASleepIsNotCutShort has a sleeping worker make a call. The kernel lets a sleep
// that was interrupted go on with the rest of its time by restart_syscall, and a second
// interrupt may find the thread right before that: some one in a thousand did.
func TestASleepIsNotCutShort(t *testing.T) {
	for name, onItsWay := range map[string]bool{"interrupted once": false, "and again on its way back": true} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(phps(t)["distribution"], "-n", "-r", `sleep(600);`)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
			pid := cmd.Process.Pid
			time.Sleep(200 * time.Millisecond)
			err := onThread(func() error {
				s := newSession(pid)
				if err := errors.Join(s.attach(), s.stopAll()); err != nil {
					return err
				}
				th := s.threads[pid]
				var r userRegs
				if err := getRegs(pid, &r); err != nil {
					return err
				}
				if int64(r.Rax) != -eRestartRestart {
					t.Errorf("the sleep left %d", int64(r.Rax))
				}
				if onItsWay { // as arch_do_signal_or_restart does it
					r.Rax, r.Rip = unix.SYS_RESTART_SYSCALL, r.Rip-2
					if err := setRegs(pid, &r); err != nil {
						return err
					}
				}
				c := call{nr: unix.SYS_GETPID}
				sent, err := s.send(th, c)
				if err == nil && !sent {
					var got uint64
					if got, err = s.inject(th, &c); got != uint64(pid) {
						t.Errorf("getpid gave %d, not %d", got, pid)
					}
				}
				return errors.Join(err, s.release())
			})
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(200 * time.Millisecond)
			if st := statusField(pid, "State"); !strings.HasPrefix(st, "S") {
				t.Errorf("the sleep is over: state %s", st)
			}
		})
	}
}
