package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// idleFor is how long a watch over idle workers is measured.
const idleFor = 30 * time.Second

// idlers are workers that wait for requests.
type idlers struct {
	n        int
	share    float64 // of one processor, that watching them takes
	tick     time.Duration
	resident float64
}

// idle measures what it takes to watch n workers of php-fpm that wait.
func (e *endurance) idle(ctx context.Context, n int) (out idlers, err error) {
	dir := filepath.Join(e.tmp, "idle")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return out, err
	}
	conf := filepath.Join(dir, "fpm.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, fpmConf, dir, n), 0o600); err != nil {
		return out, err
	}
	pool := exec.Command(e.fpm, "-n", "-R", "-y", conf)
	pool.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := pool.Start(); err != nil {
		return out, err
	}
	defer killGroup(pool)
	if err := until(ctx, readyTimeout, func() bool { return len(children(pool.Process.Pid)) == n }); err != nil {
		return out, fmt.Errorf("%d workers did not start: %w", n, err)
	}
	// With the settings that nobody has changed; but requests are asked for
	// at once, not when the workers are a minute old.
	w, err := startWatch(ctx, e.phpwhy, dir, "--match", "pool www", "--age", "1s")
	if w != nil {
		defer killGroup(w.cmd)
	}
	if err != nil {
		return out, err
	}
	sleep(ctx, 5*time.Second)
	before, err := w.metrics()
	if err != nil {
		return out, err
	}
	begin := time.Now()
	sleep(ctx, idleFor)
	after, err := w.metrics()
	if err != nil {
		return out, err
	}
	if got := int(after["workers"]); got != n {
		return out, fmt.Errorf("%d workers are watched, want %d", got, n)
	}
	out = idlers{n: n, share: (after["cpu_seconds_total"] - before["cpu_seconds_total"]) / time.Since(begin).Seconds(), resident: after["resident_bytes"]}
	out.tick = time.Duration(float64(time.Second) * (after["tick_seconds_total"] - before["tick_seconds_total"]) / (after["ticks_total"] - before["ticks_total"]))
	return out, nil
}
