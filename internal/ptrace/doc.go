// Package ptrace stops a running process for moments and tells a Handler where
// it stood: at breakpoints, or wherever it was when a sample was due.
//
// Contract: Observe, ObserveCommand and Freeze leave the process as it was, on
// every way out: no breakpoint, no stopped thread, no changed signal action.
// All ptrace requests come from one locked OS thread, which ends with the
// call; should anything above fail, the kernel detaches what that thread traced.
//
// Hazard: a tracer can be killed at any instant. A breakpoint's SIGTRAP that
// is then on its way would kill the worker. So a breakpoint is only armed after
// the worker's action for SIGTRAP has been made harmless; see net.go.
//
// Hazard: stopping a thread interrupts the system call it waits in. Most
// restart unseen; epoll_wait, semop and a few more return EINTR, as they do
// after SIGCONT (signal(7)). Only samples and the first stop do that.
//
// Non-goal: it follows no children and reads no stack.
package ptrace
