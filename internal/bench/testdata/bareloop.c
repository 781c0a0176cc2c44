/* How many breakpoint stops per second a loop that only counts can take from a
 * running process: the yardstick for phpwhy's engines on the same worker. int3
 * at a function, registers read, the first instruction emulated, registers
 * written, go on. In the end the process is left as it was.
 *
 *   gcc -O2 -o bareloop bareloop.c && ./bareloop PID ADDRESS SECONDS
 * prints the stops and the seconds.
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static pid_t pid;
static uint64_t at;
static unsigned char code[8];

/* Runs the first instruction on the registers; 0 when it is one that this does
 * not know. The flags are dead at a function's start. */
static int emulate(struct user_regs_struct *r) {
	if (code[0] == 0x48 && code[1] == 0x83 && code[2] == 0xec) { /* sub $imm8,%rsp */
		r->rsp -= (signed char)code[3];
		r->rip = at + 4;
		return 1;
	}
	if (!memcmp(code, "\xf3\x0f\x1e\xfa", 4)) { /* endbr64 */
		r->rip = at + 4;
		return 1;
	}
	if (!memcmp(code, "\x49\x89\xca", 3)) { /* mov %rcx,%r10 */
		r->r10 = r->rcx;
		r->rip = at + 3;
		return 1;
	}
	int wide = code[0] == 0x41 && (code[1] & 0xf8) == 0x50;
	if (wide || code[0] == 0x53 || code[0] == 0x55) { /* push %rbx, %rbp, %r8 to %r15 */
		unsigned long long *upper[] = {&r->r8, &r->r9, &r->r10, &r->r11, &r->r12, &r->r13, &r->r14, &r->r15};
		unsigned long long v = wide ? *upper[code[1] & 7] : code[0] == 0x53 ? r->rbx : r->rbp;
		r->rsp -= 8;
		r->rip = at + 1 + wide;
		return !ptrace(PTRACE_POKEDATA, pid, r->rsp, v);
	}
	return 0;
}

int main(int argc, char **argv) {
	if (argc != 4)
		return 2;
	pid = atoi(argv[1]);
	at = strtoull(argv[2], 0, 0);
	double seconds = atof(argv[3]);
	int st;
	if (ptrace(PTRACE_SEIZE, pid, 0, 0) || ptrace(PTRACE_INTERRUPT, pid, 0, 0) || waitpid(pid, &st, __WALL) != pid) {
		perror("ptrace");
		return 2;
	}
	long word = ptrace(PTRACE_PEEKTEXT, pid, at, 0);
	memcpy(code, &word, sizeof code);
	struct user_regs_struct r = {0};
	if (code[0] != 0x41 && code[0] != 0x53 && code[0] != 0x55 && !emulate(&r)) {
		fprintf(stderr, "the function begins with an instruction that is not emulated: %016lx\n", word);
		ptrace(PTRACE_DETACH, pid, 0, 0);
		return 2;
	}
	ptrace(PTRACE_POKETEXT, pid, at, (word & ~0xffL) | 0xcc);
	ptrace(PTRACE_CONT, pid, 0, 0);
	long stops = 0;
	double from = now(), t = 0;
	for (;;) {
		if (waitpid(pid, &st, __WALL) != pid || !WIFSTOPPED(st))
			return 1;
		if (WSTOPSIG(st) != SIGTRAP) {
			ptrace(PTRACE_CONT, pid, 0, WSTOPSIG(st));
			continue;
		}
		ptrace(PTRACE_GETREGS, pid, 0, &r);
		stops++;
		if ((t = now() - from) >= seconds || !emulate(&r))
			break;
		ptrace(PTRACE_SETREGS, pid, 0, &r);
		ptrace(PTRACE_CONT, pid, 0, 0);
	}
	r.rip = at;
	ptrace(PTRACE_POKETEXT, pid, at, word);
	ptrace(PTRACE_SETREGS, pid, 0, &r);
	ptrace(PTRACE_DETACH, pid, 0, 0);
	if (t < seconds)
		return 1;
	printf("%ld %.6f\n", stops, t);
	return 0;
}
