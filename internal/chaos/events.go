package main

import (
	"syscall"
	"time"
)

// engines are those that take part; `-engines` chooses among them.
var engines = []string{"hwbp", "int3", "syscall", probing}

// probing is the engine that traces nothing. To take a breakpoint out the kernel
// waits for all processors, some 0.1 s each on an idle host.
const (
	probing     = "uprobe"
	probingSlow = 3
)

// event is what happens to phpwhy or to the worker in a round.
type event struct {
	name     string
	weight   int
	kinds    []kind // of the workers that it can happen to, one as likely as another
	kills    bool   // phpwhy gets SIGKILL
	signals  bool   // phpwhy gets a signal that it handles
	ends     bool   // the worker ends
	replaces bool   // the worker executes another program, or may
	stream   bool   // the worker gets counted signals all the time
	stopped  bool   // it stops the worker, which must stay so
	early    bool   // the worker is stopped before phpwhy is started
	act      func(r *round) error
}

var (
	anyKind  = []kind{kindLoop, kindLoop, kindThreads, kindMasked, kindConcat, kindConcat, kindConcat, kindFPM, kindMaster}
	ownKinds = []kind{kindLoop, kindThreads, kindMasked, kindConcat}
	parents  = []kind{kindLoop, kindThreads, kindMasked, kindConcat, kindMaster}
)

var events = []*event{
	{name: "nothing", weight: 1, kinds: anyKind, act: nothing},
	{name: "SIGKILL", weight: 10, kinds: anyKind, kills: true, act: toPhpwhy(syscall.SIGKILL)},
	{name: "SIGTERM", weight: 2, kinds: anyKind, signals: true, act: toPhpwhy(syscall.SIGTERM)},
	{name: "SIGINT", weight: 2, kinds: anyKind, signals: true, act: toPhpwhy(syscall.SIGINT)},
	{name: "SIGINT twice", weight: 2, kinds: anyKind, signals: true, act: toPhpwhy(syscall.SIGINT, syscall.SIGINT)},
	{name: "SIGHUP", weight: 2, kinds: anyKind, signals: true, act: toPhpwhy(syscall.SIGHUP)},
	{name: "SIGINT, SIGKILL", weight: 3, kinds: anyKind, kills: true, signals: true, act: toPhpwhy(syscall.SIGINT, syscall.SIGKILL)},
	{name: "worker killed", weight: 2, kinds: []kind{kindLoop, kindThreads, kindMasked, kindConcat, kindFPM}, ends: true, act: toWorker(syscall.SIGKILL)},
	{name: "worker exits", weight: 2, kinds: []kind{kindLoop, kindThreads, kindMasked, kindConcat, kindFPM}, ends: true, act: ask(cmdExit)},
	{name: "worker execs", weight: 2, kinds: ownKinds, replaces: true, act: ask(cmdExec)},
	{name: "worker execs, SIGKILL", weight: 2, kinds: ownKinds, replaces: true, kills: true, act: then(ask(cmdExec), toPhpwhy(syscall.SIGKILL))},
	{name: "worker forks", weight: 2, kinds: parents, act: fork},
	{name: "worker forks, SIGKILL", weight: 2, kinds: parents, kills: true, act: then(fork, toPhpwhy(syscall.SIGKILL))},
	{name: "worker spawns", weight: 2, kinds: ownKinds, act: ask(cmdSpawn)},
	{name: "worker spawns, SIGKILL", weight: 2, kinds: ownKinds, kills: true, act: then(ask(cmdSpawn), toPhpwhy(syscall.SIGKILL))},
	{name: "new threads", weight: 2, kinds: ownKinds, act: ask(cmdThreads)},
	{name: "new threads, SIGKILL", weight: 2, kinds: ownKinds, kills: true, act: then(ask(cmdThreads), toPhpwhy(syscall.SIGKILL))},
	{name: "new threads, SIGTERM", weight: 1, kinds: ownKinds, signals: true, act: then(ask(cmdThreads), toPhpwhy(syscall.SIGTERM))},
	{name: "SIGSTOP, SIGCONT", weight: 2, kinds: anyKind, act: toWorker(syscall.SIGSTOP, syscall.SIGCONT)},
	{name: "SIGSTOP, phpwhy SIGKILL", weight: 2, kinds: anyKind, kills: true, stopped: true, act: then(toWorker(syscall.SIGSTOP), toPhpwhy(syscall.SIGKILL))},
	{name: "SIGSTOP, phpwhy SIGTERM", weight: 1, kinds: anyKind, signals: true, stopped: true, act: then(toWorker(syscall.SIGSTOP), toPhpwhy(syscall.SIGTERM))},
	{name: "stopped before", weight: 1, kinds: anyKind, early: true, stopped: true, act: nothing},
	{name: "stopped before, SIGCONT", weight: 1, kinds: anyKind, early: true, act: toWorker(syscall.SIGCONT)},
	{name: "stopped before, SIGKILL", weight: 2, kinds: anyKind, early: true, stopped: true, kills: true, act: toPhpwhy(syscall.SIGKILL)},
	{name: "phpwhy SIGTSTP, SIGCONT", weight: 1, kinds: anyKind, act: toPhpwhy(syscall.SIGTSTP, syscall.SIGCONT)},
	{name: "counted signals", weight: 2, kinds: anyKind, stream: true, act: nothing},
	{name: "counted signals, SIGKILL", weight: 3, kinds: anyKind, stream: true, kills: true, act: toPhpwhy(syscall.SIGKILL)},
	{name: "counted signals, SIGINT", weight: 1, kinds: anyKind, stream: true, signals: true, act: toPhpwhy(syscall.SIGINT)},
}

var totalWeight = func() int {
	n := 0
	for _, e := range events {
		n += e.weight
	}
	return n
}()

// pick returns the event that a number below totalWeight stands for.
func pick(n int) *event {
	for _, e := range events {
		if n -= e.weight; n < 0 {
			return e
		}
	}
	return events[0]
}

func eventNamed(name string) *event {
	for _, e := range events {
		if e.name == name {
			return e
		}
	}
	return nil
}

func nothing(*round) error { return nil }

// toPhpwhy sends signals to phpwhy, the plan's gap apart.
func toPhpwhy(sigs ...syscall.Signal) func(*round) error {
	return func(r *round) error {
		for i, s := range sigs {
			if i > 0 {
				time.Sleep(r.gap)
			}
			r.signal(s)
		}
		return nil
	}
}

// toWorker sends signals to the worker.
func toWorker(sigs ...syscall.Signal) func(*round) error {
	return func(r *round) error {
		for i, s := range sigs {
			if i > 0 {
				time.Sleep(r.gap)
			}
			if err := syscall.Kill(r.w.pid, s); err != nil {
				return err
			}
		}
		return nil
	}
}

// ask makes the worker do something as soon as it looks.
func ask(cmd uint64) func(*round) error {
	return func(r *round) error { return r.w.page.set(wCommand, cmd) }
}

// fork makes the worker, or the master of a pool, fork.
func fork(r *round) error {
	if r.w.kind != kindMaster {
		return ask(cmdFork)(r)
	}
	for _, pid := range children(r.w.pid) {
		return syscall.Kill(pid, syscall.SIGKILL)
	}
	return nil
}

func then(a, b func(*round) error) func(*round) error {
	return func(r *round) error {
		if err := a(r); err != nil {
			return err
		}
		time.Sleep(r.gap)
		return b(r)
	}
}
