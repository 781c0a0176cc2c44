package rules

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"cel.dev/cel-go/cel"

	"github.com/phpwhy/phpwhy/symbolize/symname"
)

// evidence are the names that expressions know, with their types and how the
// evidence is collected. A misspelt name fails when the rule is loaded.
var evidence = map[string]struct {
	typ *cel.Type
	how string
}{
	"event.symbol": {cel.StringType, "attach stops at breakpoints; dump does not"},
	"event.args":   {cel.ListType(cel.UintType), "attach stops at breakpoints; dump does not"},

	"chain.steps":       {cel.IntType, "attach with breakpoints on mmap and mremap"},
	"chain.monotonic":   {cel.BoolType, "attach with breakpoints on mmap and mremap"},
	"chain.grown_bytes": {cel.IntType, "attach with breakpoints on mmap and mremap"},
	"chain.start_bytes": {cel.IntType, "attach with breakpoints on mmap and mremap, and a call that tells the block's whole size"},
	"chain.end_bytes":   {cel.IntType, "attach with breakpoints on mmap and mremap, and a call that tells the block's whole size"},
	"chain.size_known":  {cel.BoolType, "attach with breakpoints on mmap and mremap"},
	"chain.quadratic":   {cel.BoolType, "attach with breakpoints on mmap and mremap"},
	"chain.blocks":      {cel.IntType, "attach with breakpoints on mmap and mremap"},
	"chain.symbol":      {cel.StringType, "attach with breakpoints on mmap and mremap"},

	"rate.stops_per_s":   {cel.DoubleType, "attach with breakpoints"},
	"rate.samples_per_s": {cel.DoubleType, "attach"},

	"proc.cpu_pct":      {cel.DoubleType, "attach observes for a while; dump does not"},
	"proc.runnable_pct": {cel.DoubleType, "attach observes for a while; dump does not"},
	"proc.cpu_s":        {cel.DoubleType, "attach observes for a while; dump does not"},
	"proc.starved_by":   {cel.StringType, "attach, of a worker that wanted a processor and had none most of the time"},
	"proc.state":        {cel.StringType, "a live process"},
	"proc.rss":          {cel.IntType, "a live process"},
	"proc.wchan":        {cel.StringType, "a live process whose thread with PHP code waits in the kernel (not in a sleep that was looked at before), and root"},
	"proc.syscall":      {cel.IntType, "a live process and root"},
	"proc.threads":      {cel.IntType, "a live process"},
	"proc.age_s":        {cel.DoubleType, "a live process"},
	"proc.tracer_pid":   {cel.IntType, "a live process"},

	"proc.read_bytes_per_s": {cel.DoubleType, "attach observes for a while and is root; dump does not"},

	"stack.unchanged_s":      {cel.DoubleType, "attach takes samples; dump takes one"},
	"stack.same_call_s":      {cel.DoubleType, "attach takes several samples, of PHP 7 or later"},
	"stack.arg_bytes":        {cel.IntType, "attach takes samples; one in an internal function of PHP"},
	"stack.depth":            {cel.IntType, "any stack"},
	"stack.php_depth":        {cel.IntType, "any stack with PHP frames"},
	"stack.php_depth_growth": {cel.IntType, "attach takes several stacks; dump takes one"},
	"stack.php_repeat":       {cel.IntType, "any stack with PHP frames"},
	"stack.php_repeated":     {cel.StringType, "any stack with PHP frames"},
	"stack.call":             {cel.StringType, "a stack whose innermost PHP function is an internal one"},
	"stack.site_share":       {cel.DoubleType, "any stack with PHP frames"},

	"fd.kind":       {cel.StringType, "a thread in PHP code that waits for a file descriptor"},
	"fd.path":       {cel.StringType, "a thread in PHP code that waits for a file"},
	"fd.peer":       {cel.StringType, "a thread in PHP code that waits for a connected socket"},
	"fd.local":      {cel.StringType, "a thread in PHP code that waits for a socket with an address"},
	"fd.state":      {cel.StringType, "a thread in PHP code that waits for a socket"},
	"fd.recv_queue": {cel.IntType, "a thread in PHP code that waits for a socket"},
	"fd.send_queue": {cel.IntType, "a thread in PHP code that waits for a socket"},
	"fd.quiet_s":    {cel.DoubleType, "a thread in PHP code that waits for a TCP connection, and Linux 5.6 or later"},

	"wait.syscall":   {cel.StringType, "a thread in PHP code that is blocked in a system call, all the time from one sample to another"},
	"wait.lasting_s": {cel.DoubleType, "attach takes several samples; dump takes one"},
	"wait.for_s":     {cel.DoubleType, "attach takes several samples; dump knows it of a TCP connection"},
	"wait.timeout_s": {cel.DoubleType, "a system call that has a time limit or could have one"},
	"wait.fd":        {cel.IntType, "a thread in PHP code that waits for a file descriptor"},
	"wait.on":        {cel.StringType, "a thread in PHP code that waits for a file descriptor"},
	"wait.fds":       {cel.IntType, "a thread in PHP code that waits for file descriptors"},

	"fd.peer_pid":       {cel.IntType, "phpwhy collect, of a connection whose other end is on this host"},
	"fd.peer_stopped":   {cel.BoolType, "phpwhy collect, of a connection whose other end is on this host"},
	"fd.peer_cmdline":   {cel.StringType, "phpwhy collect, of a connection whose other end is on this host"},
	"fd.held_by":        {cel.IntType, howHeld},
	"fd.holder":         {cel.StringType, howHeld},
	"fd.held_by_parent": {cel.BoolType, howHeld},

	"lock.kind":             {cel.StringType, howBlocked},
	"lock.path":             {cel.StringType, howBlocked},
	"lock.holder":           {cel.StringType, howHeld},
	"lock.holder_pid":       {cel.IntType, howHeld},
	"lock.holder_cmdline":   {cel.StringType, howHeld},
	"lock.holder_ended":     {cel.BoolType, howHeld},
	"lock.holder_stopped":   {cel.BoolType, howHeld},
	"lock.contended_path":   {cel.StringType, howHeld},
	"lock.contended_holder": {cel.StringType, howHeld},
	"lock.contended_pid":    {cel.IntType, howHeld},

	"child.pid":     {cel.IntType, howHeld},
	"child.cmdline": {cel.StringType, howHeld},
	"child.state":   {cel.StringType, howHeld},
	"child.process": {cel.StringType, howHeld},

	"pool.workers":     {cel.IntType, howPool},
	"pool.same_stack":  {cel.IntType, howPool},
	"php.version":      {cel.StringType, "a PHP process"},
	"php.sapi":         {cel.StringType, "a PHP process"},
	"php.memory_usage": {cel.IntType, "PHP's own memory manager (not with USE_ZEND_ALLOC=0)"},
	"php.memory_limit": {cel.IntType, "a memory_limit other than -1"},

	"php.request_age_s": {cel.DoubleType, "a request in progress, and somebody who has noted when it began"},

	"hash.keys":          {cel.IntType, "attach takes samples; a large array at hand while one finds it at work"},
	"hash.keys_per_slot": {cel.DoubleType, "attach takes samples; a large array at hand while one finds it at work"},

	"php.gc_runs":             {cel.IntType, "a PHP process"},
	"php.gc_collected":        {cel.IntType, "a PHP process"},
	"php.gc_roots":            {cel.IntType, "PHP 7.3 or later"},
	"php.gc_threshold":        {cel.IntType, "PHP 7.3 or later"},
	"php.gc_time_s":           {cel.DoubleType, "PHP 8.3 or later, and a collection"},
	"php.gc_enabled":          {cel.BoolType, "a PHP process"},
	"php.gc_active":           {cel.BoolType, "a PHP process"},
	"php.gc_protected":        {cel.BoolType, "a PHP process"},
	"php.output_buffer_bytes": {cel.IntType, "a PHP process"},
	"php.output_buffer_level": {cel.IntType, "a PHP process"},
	"php.allocator":           {cel.StringType, "a PHP process"},
	"php.phase":               {cel.StringType, "PHP code that runs"},
	"php.place":               {cel.StringType, "PHP code that runs, and its native frames"},
	"php.frames":              {cel.IntType, "a PHP process"},
	"php.frames_exact":        {cel.BoolType, "a PHP process"},
	"php.opcode":              {cel.StringType, "any stack with PHP frames"},
}

// How evidence is collected that several names share.
const (
	howBlocked = "a live process that is blocked in a system call of that kind, and root"
	howPool    = "phpwhy collect, or phpwhy report on what it wrote, with several workers; attach and dump judge one alone"
	howHeld    = "a live process that is blocked, root, and a holder whose pid is visible from here"
)

func evidenceNames() []string {
	out := make([]string, 0, len(evidence))
	for n := range evidence {
		out = append(out, n)
	}
	sort.Strings(out)
	return out
}

// convert brings a fact to the type that its name has; ok is false when it
// can't be.
func convert(name string, v any) (any, bool) {
	d, known := evidence[name]
	if !known {
		return nil, false
	}
	switch d.typ {
	case cel.IntType:
		switch n := v.(type) {
		case int64:
			return n, true
		case int:
			return int64(n), true
		case float64:
			if n == float64(int64(n)) {
				return int64(n), true
			}
		}
	case cel.DoubleType:
		switch n := v.(type) {
		case float64:
			return n, true
		case int64:
			return float64(n), true
		case int:
			return float64(n), true
		}
	case cel.StringType:
		s, ok := v.(string)
		return s, ok
	case cel.BoolType:
		b, ok := v.(bool)
		return b, ok
	}
	return nil, false
}

// collect derives what can be derived from events and stacks and adds the
// facts.
func collect(o *Observation) map[string]any {
	vars := make(map[string]any)
	for name, v := range o.Facts {
		if c, ok := convert(name, v); ok {
			vars[name] = c
		}
	}
	for i := range o.Events {
		if ev := &o.Events[i]; ev.Kind == Stop {
			vars["event.symbol"] = ev.Symbol
			vars["event.args"] = ev.Args
			break
		}
	}
	stops, samples := count(o)
	// A pasted stack or two show no growth, and no lack of it. Neither does one
	// function without the other: blocks grow by mremap or by mmap.
	if o.Duration > 0 || stops >= fewStops {
		both := watches(o, "mmap") && watches(o, "mremap")
		if c := DeriveChain(o.Events); both || c.Steps > 0 {
			collectChain(c, vars)
		}
	}
	if s := o.Duration.Seconds(); s > 0 {
		if len(o.Watched) > 0 {
			vars["rate.stops_per_s"] = float64(stops) / s
		}
		vars["rate.samples_per_s"] = float64(samples) / s
		// Who hardly runs does hardly anything, which says nothing of what it would do.
		if pct, ok := vars["proc.cpu_pct"].(float64); ok {
			vars["proc.cpu_s"] = pct / 100 * s
		}
	}
	collectStacks(o, vars)
	return vars
}

// fewStops are as many as tell of growth when nobody says how long they took.
const fewStops = 8

func collectChain(c Chain, vars map[string]any) {
	vars["chain.steps"], vars["chain.monotonic"] = int64(c.Steps), c.Monotonic
	vars["chain.quadratic"], vars["chain.symbol"] = c.Quadratic, c.Symbol
	vars["chain.blocks"] = int64(c.Blocks)
	vars["chain.grown_bytes"], vars["chain.size_known"] = int64(c.GrownBytes), c.SizeKnown
	// Without a step there is no block, and its size is 0 rather than unknown.
	if c.SizeKnown || c.Steps == 0 {
		vars["chain.start_bytes"], vars["chain.end_bytes"] = int64(c.StartBytes), int64(c.EndBytes)
	}
}

// watches reports whether a function, by its canonical name, had a breakpoint.
func watches(o *Observation, symbol string) bool {
	return slices.ContainsFunc(o.Watched, func(w string) bool { return symname.Canonical(w) == symbol })
}

func count(o *Observation) (stops, samples int) {
	for i := range o.Events {
		if o.Events[i].Kind == Stop {
			stops++
		} else {
			samples++
		}
	}
	return stops, samples
}

// collectStacks derives the evidence about depth and sameness.
func collectStacks(o *Observation, vars map[string]any) {
	type shape struct {
		depth, php, repeat int
		repeated           string // the function that is on the stack repeat times
	}
	shapes := make([]shape, len(o.Stacks))
	sites := make([]string, len(o.Stacks))
	calls := make([]string, len(o.Stacks))
	for i := range o.Stacks {
		repeats := make(map[string]int)
		for j := range o.Stacks[i].Frames {
			f := &o.Stacks[i].Frames[j]
			shapes[i].depth++
			if f.Kind != PHP {
				continue
			}
			shapes[i].php++
			name := f.Class + "::" + f.Name
			if f.Internal && shapes[i].php == 1 {
				calls[i] = strings.TrimPrefix(name, "::")
			}
			if !f.Internal {
				repeats[name]++
				if n := repeats[name]; n > shapes[i].repeat {
					shapes[i].repeat, shapes[i].repeated = n, strings.TrimPrefix(name, "::")
				}
				if sites[i] == "" {
					sites[i] = name + "\x00" + f.File
				}
			}
		}
	}
	var top shape
	perSite, perCall := make(map[string]int), make(map[string]int)
	first, last, seen := 0, 0, 0
	var since *Event
	for i := range o.Events {
		ev := &o.Events[i]
		s := shapes[ev.Stack]
		top.depth, top.php = max(top.depth, s.depth), max(top.php, s.php)
		if s.repeat > top.repeat {
			top.repeat, top.repeated = s.repeat, s.repeated
		}
		if s.php > 0 {
			if seen == 0 {
				first = s.php
			}
			last = s.php
			seen++
			perSite[sites[ev.Stack]]++
			if call := calls[ev.Stack]; call != "" {
				perCall[call]++
			}
		}
		if since == nil || since.Stack != ev.Stack {
			since = ev
		}
	}
	if len(o.Events) == 0 {
		return
	}
	vars["stack.depth"] = int64(top.depth)
	if len(o.Events) > 1 {
		vars["stack.unchanged_s"] = (o.Events[len(o.Events)-1].At - since.At).Seconds()
	}
	if seen == 0 {
		return
	}
	vars["stack.php_depth"] = int64(top.php)
	vars["stack.php_repeat"], vars["stack.php_repeated"] = int64(top.repeat), top.repeated
	if seen > 1 {
		vars["stack.php_depth_growth"] = int64(last - first)
	}
	_, most := mostFrequent(perSite)
	vars["stack.site_share"] = float64(most) / float64(seen)
	if call, n := mostFrequent(perCall); n > 0 {
		vars["stack.call"] = call
	}
}

// mostFrequent is the name that was counted most often, of equals the first in
// the alphabet.
func mostFrequent(counts map[string]int) (name string, n int) {
	for k, c := range counts {
		if c > n || c == n && k < name {
			name, n = k, c
		}
	}
	return name, n
}

// elsewhere is what rules can lack besides the evidence of expressions.
var elsewhere = map[string]string{
	inStops:     "stops (needs: attach with breakpoints; dump takes none)",
	inSamples:   "samples (needs: a longer observation)",
	inAny:       "stacks (needs: an observation with at least one stop or sample)",
	phpFrames:   "PHP frames (needs: phpwhy's own stacks; gdb and strace show none)",
	wholeStacks: "whole stacks (needs: stacks that were read to their root)",
}

// missing says what was not collected, and how it is.
func missing(name string) string {
	if text, ok := elsewhere[name]; ok {
		return text
	}
	if symbol, ok := strings.CutPrefix(name, onSymbol); ok {
		return fmt.Sprintf("%s (needs: --break %s)", name, symbol)
	}
	if e, ok := evidence[name]; ok {
		return fmt.Sprintf("%s (needs: %s)", name, e.how)
	}
	return name
}

// describeMissing describes each name once, in the order given.
func describeMissing(names []string) []string {
	var out []string
	seen := make(map[string]bool)
	for _, n := range names {
		if !seen[n] {
			seen[n] = true
			out = append(out, missing(n))
		}
	}
	return out
}

// Known is a name that expressions know.
type Known struct{ Name, Type, How string }

// KnownEvidence lists the names that expressions know, with their types in CEL and
// how the evidence is collected.
func KnownEvidence() []Known {
	var out []Known
	for _, n := range evidenceNames() {
		out = append(out, Known{n, evidence[n].typ.String(), evidence[n].how})
	}
	return out
}
