package capture

import (
	"time"

	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// concatStack is a string append seen from mremap, as gdb shows it on PHP 8.2.
func concatStack(line int) stack.Stack {
	return stack.Stack{End: stack.Root, Frames: []stack.Frame{
		{Kind: stack.Native, Function: "mremap", Raw: "__GI___mremap", Module: "libc.so.6", PC: 0x7fa5f8ff39d0, How: "entry",
			Args: []stack.Arg{{Name: "addr", Value: "0x7fa5f4c00000"}, {Name: "old_len", Value: "48599040"}}},
		{Kind: stack.Native, Module: "php8.2", PC: 0x5653bb3fc545, Offset: 0x1234, How: "cfi"},
		{Kind: stack.Native, Function: "concat_function", Raw: "concat_function", Module: "php8.2", PC: 0x5653bb420202, Offset: 98, How: "cfi"},
		{Kind: stack.Native, Function: "execute_ex", Raw: "execute_ex", Module: "php8.2", PC: 0x5653bb48bae7, Offset: 5, How: "cfi"},
		{Kind: stack.PHP, Function: "buildReport", File: "/srv/app/report.php", Line: line, Opcode: "ZEND_ASSIGN_OP"},
		{Kind: stack.PHP, Function: "{main}", File: "/srv/app/report.php", Line: 9},
		{Kind: stack.Native, Function: "main", Raw: "main", Module: "php8.2", PC: 0x5653bb23357f, Offset: 9, How: "cfi"},
	}}
}

// sampleCapture has every part of a capture, in values that are awkward in JSON.
func sampleCapture() *Capture {
	c := &Capture{
		Target: Target{PID: 4242, Cmdline: "php -n report.php <a&b>", Exe: "/usr/bin/php8.2", PHPVersion: "8.2.36", SAPI: "cli",
			Libc: "glibc", Symbols: "dynsym", Layout: "builtin",
			Request: &Request{Method: "GET", URI: "/x?q=\x1b[2J\u202e", Script: "/srv/app/x.php", AgeMS: new(int64(1))}},
		Observation: Observation{Engine: "hwbp", DurationMS: 3000, Stops: 2, Samples: 1, PausedUSTotal: 9800, PausedUSMax: 120,
			Breakpoints: []Breakpoint{{Symbol: "mremap", Module: "libc.so.6", Addr: "0x7fa5f8ff39d0", Hits: 2}},
			Ended:       "duration", Notes: []string{"hwbp: first that works"}},
		Stacks: []stack.Stack{concatStack(6), concatStack(7), {End: stack.Truncated, Error: "no CFI at 0x1"}},
		Events: []Event{
			{At: time.Millisecond, Kind: Stop, TID: 4242, Symbol: "mremap", Args: []uint64{0x7fa5f4c00000, 48599040, 1<<64 - 1, 0}, Stack: 0},
			{At: 2 * time.Millisecond, Kind: Stop, TID: 4242, Symbol: "mremap", Args: []uint64{1}, Stack: 1},
			{At: 3 * time.Millisecond, Kind: Sample, TID: 4243, Stack: 2},
		},
		Facts: map[string]any{"proc.cpu_pct": 50.0, "proc.rss": int64(1<<62 + 1), "proc.top": uint64(1<<64 - 1), "proc.state": "R",
			"fd.list": []any{map[string]any{"fd": int64(3), "peer": "10.0.0.1:3306"}}, "php.zts": false},
	}
	if err := c.Normalize(); err != nil {
		panic(err)
	}
	return c
}

func addr(n uint64) remote.Addr { return remote.Addr(n) }
