// Package perf watches a process through perf events: uprobes on functions and
// a timer on the processor's clock. The process is never stopped and not traced;
// the kernel copies at each hit, on the process's own time, and this package
// reads what it copied from ring buffers.
//
// Contract: a Sample is one instant. Registers, the stack, and the list that
// Follow describes were all copied before the thread ran its next instruction.
// What did not fit in the rings is counted. When this process dies, however
// suddenly, the kernel takes the probes out with its file descriptors.
//
// Hazard: a uprobe is a breakpoint byte in a private copy of the page, which
// only the kernel sees and removes; a thread that hits it pays for a trap. The
// kernel may leave one page, [uprobes], in the process until that ends. The
// registers, the stack and the list are the process's: anything may be in them.
//
// Non-goal: it knows neither PHP nor symbols.
//
// The records' layout is in perf_event_open(2) and include/uapi/linux/perf_event.h,
// the programs' in Documentation/bpf/standardization/instruction-set.rst.
package perf
