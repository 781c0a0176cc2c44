package proc

import (
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestTimesAgreeWithProcfs(t *testing.T) {
	for end := time.Now().Add(50 * time.Millisecond); time.Now().Before(end); { // use some
	}
	p, err := Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReadTimes(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	on, _, err := p.CPUTime()
	if err != nil {
		t.Fatal(err)
	}
	if got.Start != p.StartTime || got.Threads < 2 || got.CPU <= 0 || got.CPU > on+time.Second || got.CPU < on-time.Second {
		t.Errorf("%+v; start %d, %v on a processor", got, p.StartTime, on)
	}
	boot, err := SinceBoot()
	if err != nil {
		t.Fatal(err)
	}
	age, err := p.Age()
	if d := boot - StartedAt(got.Start) - age; err != nil || d < -time.Second || d > time.Second {
		t.Errorf("age by start time is off by %v (%v)", d, err)
	}
}

func TestTimesOfAProcessWithAStrangeName(t *testing.T) {
	dir := t.TempDir()
	name := dir + "/a) R 1 (b"
	b, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b, 0o755); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(name, "60")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
	got, err := ReadTimes(c.Process.Pid)
	if err != nil || got.Threads != 1 || got.Start == 0 {
		t.Errorf("%+v (%v)", got, err)
	}
}

func TestScheduledCountsUp(t *testing.T) {
	c := exec.Command("/bin/sh", "-c", "while :; do :; done")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		s, err := ReadScheduled(c.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		if s.On > 50*time.Millisecond && s.Slices > 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("a loop has %+v", s)
		}
	}
}

func TestTimesOfNobody(t *testing.T) {
	if _, err := ReadTimes(1 << 30); !errors.Is(err, ErrNoProcess) {
		t.Errorf("%v, want ErrNoProcess", err)
	}
	if _, err := ReadScheduled(1 << 30); !errors.Is(err, ErrNoProcess) {
		t.Errorf("%v, want ErrNoProcess", err)
	}
}
