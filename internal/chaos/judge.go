package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// report is what is looked at of phpwhy/report/v1.
type report struct {
	Schema string
	Target struct {
		PID int
	}
	Observation struct {
		Engine string
	}
}

// judge says what phpwhy itself did wrong: its exit code, its report, its
// error message.
func (r *round) judge() {
	o := r.out
	if o.tool != "" {
		return
	}
	out, _ := os.ReadFile(filepath.Join(r.dir, "out"))
	errs, _ := os.ReadFile(filepath.Join(r.dir, "err"))
	ws, _ := r.phpwhy.ProcessState.Sys().(syscall.WaitStatus)
	o.tool = r.fault(ws, out, string(errs))
	if o.tool != "" {
		o.note("phpwhy: %v; stdout %d bytes; stderr %s", r.phpwhy.ProcessState, len(out), errs)
	}
}

func (r *round) fault(ws syscall.WaitStatus, out []byte, errs string) string {
	if ws.Signaled() {
		switch {
		case ws.Signal() == syscall.SIGKILL && r.event.kills:
			return ""
		case (r.event.signals || r.asked && r.phase == phaseEnd) && ws.Signal() != syscall.SIGKILL && !r.out.hit:
			return "" // before it was ready to handle any
		}
		return fmt.Sprintf("phpwhy ended by %v", ws.Signal())
	}
	// After SIGKILL to a worker, or its exit, phpwhy has a report or says why not.
	ended := r.event.ends || r.event.replaces
	asked := r.event.signals || r.asked
	switch code := ws.ExitStatus(); {
	case code == 0:
	case code == 3 && (ended || asked):
	default:
		return fmt.Sprintf("exit code %d", code)
	}
	if n := strings.Count(errs, "\n"); n > 1 || n == 1 && !strings.HasPrefix(errs, "phpwhy: ") {
		return "stderr is not one line"
	}
	if len(out) == 0 {
		if ws.ExitStatus() == 0 {
			return "no report"
		}
		if errs == "" {
			return "neither report nor error"
		}
		return ""
	}
	var rep report
	if err := json.Unmarshal(out, &rep); err != nil {
		return "the report is no JSON: " + err.Error()
	}
	if rep.Schema != "phpwhy/report/v1" || rep.Target.PID != r.w.pid {
		return fmt.Sprintf("the report is of %s, pid %d", rep.Schema, rep.Target.PID)
	}
	if e := rep.Observation.Engine; e != r.out.engine && (e != "none" || !ended && !asked) {
		return "the report's engine is " + e
	}
	return ""
}
