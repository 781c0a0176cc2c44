package proc

import (
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

func TestTheCallAProcessIsBlockedIn(t *testing.T) {
	c := exec.Command("sleep", "60")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
	p, err := Open(c.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	var got Call
	for range 100 {
		time.Sleep(10 * time.Millisecond)
		if got, err = p.Blocked(p.PID); err == nil && got.Number == SysClockNanosleep {
			break
		}
	}
	if err != nil || got.Name() != "clock_nanosleep" || got.SP == 0 || got.PC == 0 {
		t.Errorf("%+v, %v", got, err)
	}
	sw, err := p.Switches(p.PID)
	if err != nil {
		t.Fatal(err)
	}
	defer sw.Close()
	before, ok := sw.Read()
	if !ok || before == 0 {
		t.Fatalf("%d switches, %v", before, ok)
	}
	time.Sleep(50 * time.Millisecond)
	if after, ok := sw.Read(); !ok || after != before {
		t.Errorf("%d switches, then %d, %v: it did nothing but wait", before, after, ok)
	}
	if n := testing.AllocsPerRun(10, func() { _, _ = sw.Read() }); n > 0 {
		t.Errorf("%v allocations", n)
	}
	_ = c.Process.Kill()
	_ = c.Wait()
	if n, ok := sw.Read(); ok {
		t.Errorf("%d switches of a process that has ended", n)
	}
}

func TestAThreadThatRunsIsBlockedInNothing(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p := own(t)
	if c, err := p.Blocked(unix.Gettid()); err == nil && c.Name() != "read" {
		t.Errorf("it is in %s", c.Name())
	}
}

func TestTheCallInRegisters(t *testing.T) {
	regs := func(call int64, result int64) *remote.Regs {
		r := &remote.Regs{Arch: remote.AMD64, OrigSyscall: call}
		for i := range remote.MaxRegs {
			r.Set(i, uint64(i))
		}
		r.Set(remote.RAX, uint64(result))
		return r
	}
	for _, c := range []struct {
		name         string
		call, result int64
		blocked      bool
	}{
		{"broken off, to be restarted", SysPoll, -516, true},
		{"broken off, to be made again", SysRecvfrom, -512, true},
		{"broken off for good", SysEpollWait, -4, true},
		{"finished", SysPoll, 1, false},
		{"failed", SysRead, -11, false},
		{"in no call", -1, -516, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := CallAt(regs(c.call, c.result))
			if (err == nil) != c.blocked {
				t.Fatalf("%+v, %v", got, err)
			}
			if want := [6]uint64{remote.RDI, remote.RSI, remote.RDX, remote.R10, remote.R8, remote.R9}; c.blocked && got.Args != want {
				t.Errorf("arguments %v, not %v", got.Args, want)
			}
		})
	}
}

func TestTheNumberOfARestartedCallIsInTheCode(t *testing.T) {
	memory := func(code ...byte) remote.Reader {
		return remote.ReaderFunc(func(p []byte, _ remote.Addr) (int, error) { return copy(p, code), nil })
	}
	for _, c := range []struct {
		name string
		code []byte
		want int
		ok   bool
	}{
		{"mov $7, %eax; syscall", []byte{0xb8, 7, 0, 0, 0, 0x0f, 0x05}, SysPoll, true},
		{"something else", []byte{0x48, 0x89, 0xf8, 0x90, 0x90, 0x0f, 0x05}, SysRestart, false},
		{"a number that nobody waits in", []byte{0xb8, 39, 0, 0, 0, 0x0f, 0x05}, SysRestart, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			call := Call{Number: SysRestart, PC: 0x1000}
			if ok := call.Restarted(memory(c.code...)); ok != c.ok || call.Number != c.want {
				t.Errorf("%d, %v", call.Number, ok)
			}
		})
	}
}
