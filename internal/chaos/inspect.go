package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// status returns one field of /proc/PID/status, empty when there is none.
func status(pid int, field string) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// alive says whether a process runs, waits or is stopped.
func alive(pid int) bool {
	s := status(pid, "State")
	return s != "" && s[0] != 'Z' && s[0] != 'X'
}

func traced(pid int) bool {
	t := status(pid, "TracerPid")
	return t != "" && t != "0"
}

// standing says whether any thread of a process is stopped or traced.
func standing(pid int) bool {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, t := range tasks {
		b, err := os.ReadFile(t)
		if err != nil {
			continue // it has ended
		}
		if i := bytes.LastIndexByte(b, ')'); i >= 0 && i+2 < len(b) && (b[i+2] == 'T' || b[i+2] == 't') {
			return true
		}
	}
	return false
}

// trapAction says whether a process handles or ignores SIGTRAP.
func trapAction(pid int) bool {
	const bit = 1 << (uint(syscall.SIGTRAP) - 1)
	for _, f := range []string{"SigIgn", "SigCgt"} {
		if m, err := strconv.ParseUint(status(pid, f), 16, 64); err == nil && m&bit != 0 {
			return true
		}
	}
	return false
}

// masks are the blocked signals of each thread.
func masks(pid int) map[string]string {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	out := map[string]string{}
	for _, t := range tasks {
		tid := filepath.Base(t)
		// A thread has a /proc/TID of its own, which is not listed.
		if n, err := strconv.Atoi(tid); err == nil {
			out[tid] = status(n, "SigBlk")
		}
	}
	return out
}

// maskChanged names the threads that block other signals than before.
func maskChanged(pid int, before map[string]string) string {
	var out []string
	for tid, now := range masks(pid) {
		if was, ok := before[tid]; ok && was != now && now != "" {
			out = append(out, fmt.Sprintf("thread %s blocks %s, before %s", tid, now, was))
		}
	}
	return strings.Join(out, "; ")
}

// mapping is one line of /proc/PID/maps with code in it.
type mapping struct {
	start, end, off uint64
	path            string
}

func executable(pid int) []mapping {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	var out []mapping
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 5 || len(f[1]) < 3 || f[1][2] != 'x' {
			continue
		}
		lo, hi, _ := strings.Cut(f[0], "-")
		var m mapping
		m.start, _ = strconv.ParseUint(lo, 16, 64)
		m.end, _ = strconv.ParseUint(hi, 16, 64)
		m.off, _ = strconv.ParseUint(f[2], 16, 64)
		if len(f) > 5 {
			m.path = f[5]
		}
		out = append(out, m)
	}
	return out
}

// anonymous counts the executable mappings without a file.
func anonymous(pid int) int {
	n := 0
	for _, m := range executable(pid) {
		if m.path == "" || strings.HasPrefix(m.path, "[anon") {
			n++
		}
	}
	return n
}

// textDiffers counts the bytes of libc's code that are not as in its file. A
// process whose memory is gone has none.
func textDiffers(pid int) (int, error) {
	for _, m := range executable(pid) {
		if !strings.Contains(m.path, "/libc.so") {
			continue
		}
		have, want := make([]byte, m.end-m.start), make([]byte, m.end-m.start)
		mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
		if err != nil {
			return 0, nil
		}
		defer mem.Close()
		if n, err := mem.ReadAt(have, int64(m.start)); err != nil {
			if n == 0 {
				return 0, nil
			}
			return 0, err
		}
		file, err := os.Open(m.path)
		if err != nil {
			return 0, err
		}
		defer file.Close()
		n, err := file.ReadAt(want, int64(m.off))
		if err != nil && err != io.EOF {
			return 0, err
		}
		differ := 0
		for i := range n {
			if have[i] != want[i] {
				differ++
			}
		}
		return differ, nil
	}
	return 0, nil
}

// running lists the processes that execute a file.
func running(exe string) []int {
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	var out []int
	for _, l := range links {
		if p, err := os.Readlink(l); err == nil && p == exe {
			if pid, err := strconv.Atoi(strings.Split(l, "/")[2]); err == nil && alive(pid) {
				out = append(out, pid)
			}
		}
	}
	return out
}

// children of a process's first thread.
func children(pid int) []int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	var out []int
	for _, f := range strings.Fields(string(b)) {
		if n, err := strconv.Atoi(f); err == nil {
			out = append(out, n)
		}
	}
	return out
}
