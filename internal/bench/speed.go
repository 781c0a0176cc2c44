package main

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// aloneFor is how long the worker's speed is measured before a tool begins.
	aloneFor = 400 * time.Millisecond
	// speedEvery is the time between two looks at it.
	speedEvery = 25 * time.Millisecond
)

// watch measures how fast append.php goes round its loop, until the function that
// it returns is called, and returns the median over the middle of that time, in
// rounds a second: tools begin and end at leisure. Each round touches one new page,
// so the kernel's count of page faults is a count of rounds.
func (w *worker) watch() (speed func() float64) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var rates []float64
	wg.Go(func() {
		tick := time.NewTicker(speedEvery)
		defer tick.Stop()
		last, from := w.faults(), time.Now()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				n, now := w.faults(), time.Now()
				rates = append(rates, float64(n-last)/now.Sub(from).Seconds())
				last, from = n, now
			}
		}
	})
	return func() float64 {
		close(stop)
		wg.Wait()
		if middle := rates[len(rates)*3/10 : len(rates)*9/10]; len(middle) > 0 {
			return summarize(slices.Clone(middle)).median
		}
		return 0
	}
}

// faults is minflt of /proc/PID/stat, 0 when that can't be read.
func (w *worker) faults() int64 {
	text := fileText("/proc/" + w.pid() + "/stat")
	// The name in parentheses may contain anything; minflt is the 8th field
	// behind it (proc_pid_stat(5)).
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(f) < 8 {
		return 0
	}
	n, err := strconv.ParseInt(f[7], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// libc returns the path of the C library that the worker has mapped, and where
// mremap is in its memory.
func (w *worker) libc() (path string, mremap uint64, err error) {
	maps, err := os.ReadFile("/proc/" + w.pid() + "/maps")
	if err != nil {
		return "", 0, err
	}
	for line := range strings.Lines(string(maps)) {
		f := strings.Fields(line)
		if len(f) < 6 || !strings.Contains(f[1], "x") || !strings.Contains(f[5], "/libc.so") {
			continue
		}
		var start, end, offset uint64
		if _, err := fmt.Sscanf(f[0]+" "+f[2], "%x-%x %x", &start, &end, &offset); err != nil {
			return "", 0, err
		}
		e, err := elf.Open(f[5])
		if err != nil {
			return "", 0, err
		}
		defer e.Close()
		syms, err := e.DynamicSymbols()
		if err != nil {
			return "", 0, err
		}
		i := slices.IndexFunc(syms, func(s elf.Symbol) bool { return s.Name == "mremap" })
		if i < 0 {
			return "", 0, fmt.Errorf("%s has no mremap", f[5])
		}
		for _, p := range e.Progs {
			if v := syms[i].Value; p.Type == elf.PT_LOAD && v >= p.Vaddr && v < p.Vaddr+p.Filesz {
				return f[5], start + (v - p.Vaddr + p.Off) - offset, nil
			}
		}
	}
	return "", 0, errors.New("the worker has no libc mapped")
}
