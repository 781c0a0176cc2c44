package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// outcome is what a round came to.
type outcome struct {
	plan
	engine    string
	hit       bool // the worker was traced or probed when the event came
	lost      bool // the worker has ended or makes no progress, and should not
	stopped   bool // it is stopped or traced, and should not be; or the reverse
	text      int  // bytes of libc's code that are not as in its file
	signals   uint64
	mask      bool   // a thread blocks other signals than before
	wrong     uint64 // results of calls and ends of children
	stray     int    // processes of phpwhy that stayed
	leftovers bool   // a page or a handler stayed, and phpwhy was not killed
	leftPage  bool   // the same after SIGKILL, which is by design
	tool      string // what phpwhy itself did wrong
	notes     []string
	lasted    time.Duration
}

func (o *outcome) failed() bool {
	return o.lost || o.stopped || o.text > 0 || o.signals > 0 || o.mask || o.wrong > 0 || o.stray > 0 || o.leftovers || o.tool != ""
}

func (o *outcome) note(format string, a ...any) { o.notes = append(o.notes, fmt.Sprintf(format, a...)) }

// round is one in progress.
type round struct {
	*config
	plan
	w       *worker
	out     *outcome
	dir     string
	exe     string // the slot's own name of phpwhy, by which its processes are found
	pages   int    // anonymous executable mappings of the worker before
	masks   map[string]string
	phpwhy  *exec.Cmd
	began   time.Time     // when phpwhy was started
	tracing time.Time     // when it was first seen to trace
	done    chan struct{} // closed when it has ended
	stream  *stream
}

// runRound plays one plan. An error says that the round itself did not work.
func (c *config) runRound(ctx context.Context, engine string, p plan, dir string) (*outcome, error) {
	r := &round{config: c, plan: p, out: &outcome{plan: p, engine: engine}, dir: dir, exe: filepath.Join(dir, "phpwhy"), done: make(chan struct{})}
	var err error
	if r.w, err = c.startWorker(ctx, p.kind, dir); err != nil {
		return nil, err
	}
	defer r.w.kill()
	r.pages, r.masks = anonymous(r.w.pid), masks(r.w.pid)
	if p.stream {
		r.stream = startStream(r.w)
	}
	if p.event.early {
		_ = syscall.Kill(r.w.pid, syscall.SIGSTOP)
		if err := until(ctx, c.workerLimit, func() bool { return standing(r.w.pid) }); err != nil {
			return nil, fmt.Errorf("stop the worker: %w", err)
		}
	}
	if err := r.start(engine); err != nil {
		return nil, err
	}
	defer func() { r.end(0); r.stream.stop() }()
	r.await(ctx)
	r.out.hit = r.watched()
	if !r.tracing.IsZero() {
		r.out.note("%v after it was first traced", time.Since(r.tracing).Round(10*time.Microsecond))
	}
	if err := p.event.act(r); err != nil && !errors.Is(err, syscall.ESRCH) {
		return nil, err
	}
	r.end(p.length + patience)
	r.judge()
	r.check(ctx)
	return r.out, ctx.Err()
}

// start runs phpwhy. Its output goes to files: a pipe would be held open by
// processes it might leave.
func (r *round) start(engine string) error {
	r.phpwhy = exec.Command(r.exe, "attach", strconv.Itoa(r.w.pid), "--engine", engine, "--for", r.length.String(),
		"--stops", "1000000000", "--max-pause", r.pause, "--format", "json")
	for name, f := range map[string]func(*os.File){
		"out": func(f *os.File) { r.phpwhy.Stdout = f },
		"err": func(f *os.File) { r.phpwhy.Stderr = f },
	} {
		file, err := os.Create(filepath.Join(r.dir, name))
		if err != nil {
			return err
		}
		defer file.Close()
		f(file)
	}
	// Not in the harness's group: a Ctrl-C there is no event of the plan.
	r.phpwhy.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r.began = time.Now()
	if err := r.phpwhy.Start(); err != nil {
		return err
	}
	go func() { _ = r.phpwhy.Wait(); close(r.done) }()
	return nil
}

func (r *round) signal(s syscall.Signal) { _ = r.phpwhy.Process.Signal(s) }

func (r *round) over() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// await returns at the planned moment.
func (r *round) await(ctx context.Context) {
	if r.phase == phaseStart {
		r.sleep(time.Duration(r.at * float64(r.startUp.median())))
		return
	}
	for !r.watched() {
		if r.over() || ctx.Err() != nil {
			return
		}
		time.Sleep(50 * time.Microsecond)
	}
	r.tracing = time.Now()
	r.startUp.add(r.tracing.Sub(r.began))
	switch r.phase {
	case phaseArm:
		r.sleep(time.Duration(r.at * float64(armWindow)))
	case phaseMiddle:
		r.sleep(armWindow + time.Duration(r.at*float64(r.length-armWindow)))
	case phaseEnd:
		if r.asked {
			r.sleep(r.length / 2)
			r.signal(syscall.SIGINT)
			r.sleep(time.Duration(r.at * float64(endWindow)))
		} else {
			r.sleep(r.length - endEarly + time.Duration(r.at*float64(endWindow+endEarly)))
		}
	}
}

// watched says whether phpwhy has its hands on the worker: it traces it, or has
// breakpoints in it that only the kernel set.
func (r *round) watched() bool {
	if r.out.engine != probing {
		return traced(r.w.pid)
	}
	differ, err := textDiffers(r.w.pid)
	return err == nil && differ > 0
}

// sleep ends early when phpwhy does.
func (r *round) sleep(d time.Duration) {
	select {
	case <-time.After(d):
	case <-r.done:
	}
}

// end waits for phpwhy's end, and ends it when it takes too long.
func (r *round) end(limit time.Duration) {
	if limit > 0 {
		select {
		case <-r.done:
		case <-time.After(limit):
			r.out.tool = "phpwhy did not end"
			r.out.note("phpwhy %d after %v: %s", r.phpwhy.Process.Pid, limit, status(r.phpwhy.Process.Pid, "State"))
		}
	}
	_ = r.phpwhy.Process.Kill()
	<-r.done
	r.out.lasted = time.Since(r.began)
}

// check looks at the worker, once phpwhy has had time to leave.
func (r *round) check(ctx context.Context) {
	o := r.out
	clean := func() bool {
		differ, err := textDiffers(r.w.pid)
		return err == nil && differ == 0 && !traced(r.w.pid) && standing(r.w.pid) == r.event.stopped && len(running(r.exe)) == 0
	}
	_ = until(ctx, r.settle, clean)
	for _, pid := range running(r.exe) {
		o.stray++
		o.note("phpwhy %d stays: %s", pid, status(pid, "State"))
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	if r.event.ends {
		r.checkEnd(ctx)
		return
	}
	if !alive(r.w.pid) {
		o.lost = true
		o.note("the worker is gone: %s", r.w.fate())
		return
	}
	r.checkState()
	if r.event.stopped {
		_ = syscall.Kill(r.w.pid, syscall.SIGCONT)
	}
	r.stream.stop()
	if !r.w.progress(ctx, 50) && ctx.Err() == nil {
		o.lost = true
		o.note("the worker does not go on: %s", r.w.describe())
		if !alive(r.w.pid) {
			o.note("it is gone: %s", r.w.fate())
		}
	}
	if !o.lost {
		o.signals = r.stream.missing(ctx)
		r.checkMask(ctx)
	}
	r.checkResults(ctx)
	r.checkPage()
}

// checkEnd holds that a worker that was to end did so, in its own way.
func (r *round) checkEnd(ctx context.Context) {
	if err := until(ctx, r.w.limit, func() bool { return !alive(r.w.pid) }); err != nil && ctx.Err() == nil {
		r.out.stopped = true
		r.out.note("the worker does not end: %s", r.w.describe())
		return
	}
	if r.w.kind == kindFPM {
		return // its end is its parent's to know
	}
	<-r.w.done
	ws, _ := r.w.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ok := r.event.name == "worker exits" && ws.ExitStatus() == exitStatus || ws.Signaled() && ws.Signal() == syscall.SIGKILL; !ok {
		r.out.lost = true
		r.out.note("the worker ended in another way: %s", r.w.fate())
	}
}

const exitStatus = 7 // of a worker that is asked to exit

func (r *round) checkState() {
	o := r.out
	for _, pid := range append([]int{r.w.pid}, children(r.w.pid)...) {
		if traced(pid) || pid == r.w.pid && standing(pid) != r.event.stopped || pid != r.w.pid && standing(pid) {
			o.stopped = true
			o.note("process %d: state %s, traced by %s", pid, status(pid, "State"), status(pid, "TracerPid"))
		}
		differ, err := textDiffers(pid)
		if err != nil {
			o.note("libc's code of %d: %v", pid, err)
		}
		if differ > 0 {
			o.text += differ
			o.note("process %d: %d bytes of libc's code differ from the file", pid, differ)
		}
	}
}

// checkMask compares the blocked signals with those before. A handler that runs
// right now blocks some, so one look is not enough.
func (r *round) checkMask(ctx context.Context) {
	if r.event.replaces {
		return // an exec keeps the mask of the thread that calls it
	}
	if until(ctx, r.settle, func() bool { return maskChanged(r.w.pid, r.masks) == "" }) != nil && ctx.Err() == nil {
		r.out.mask = true
		r.out.note("%s", maskChanged(r.w.pid, r.masks))
	}
}

// checkResults looks at what the worker has counted.
func (r *round) checkResults(ctx context.Context) {
	o, p := r.out, r.w.page
	o.wrong = p.get(wBad) + p.get(wFailed)
	if !r.event.kills {
		o.wrong += p.get(wInherited)
	}
	if o.wrong > 0 {
		o.note("%d results wrong, %d children failed (last status %#x), %d children had an action for SIGTRAP", p.get(wBad), p.get(wFailed), p.get(wStatus), p.get(wInherited))
	}
	if r.event.replaces && until(ctx, r.w.limit, func() bool { return p.get(wExecs) == 1 }) != nil && ctx.Err() == nil {
		o.wrong++
		o.note("%d execs", p.get(wExecs))
	}
}

func (r *round) checkPage() {
	if !trapAction(r.w.pid) && (anonymous(r.w.pid) <= r.pages || r.event.replaces && anonymous(r.w.pid) == 0) {
		return
	}
	if r.killed() {
		r.out.leftPage = true
		return
	}
	r.out.leftovers = true
	r.out.note("SIGTRAP has an action: %t; %d anonymous executable mappings, before %d", trapAction(r.w.pid), anonymous(r.w.pid), r.pages)
}

// killed says whether phpwhy ended by SIGKILL.
func (r *round) killed() bool {
	ws, _ := r.phpwhy.ProcessState.Sys().(syscall.WaitStatus)
	return ws.Signaled() && ws.Signal() == syscall.SIGKILL
}

// describe shows a worker's state for a failure's details.
func (w *worker) describe() string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.pid))
	if err != nil {
		return err.Error()
	}
	return string(bytes.ReplaceAll(bytes.TrimSpace(b), []byte("\n"), []byte("; ")))
}
