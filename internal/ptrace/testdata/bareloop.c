/* How many breakpoint stops per second a loop that only counts can take: the
 * yardstick for the int3 engine. int3 at a function of the child, registers
 * read, the first instruction (sub $N,%rsp) emulated, registers written, go on.
 *
 *   gcc -O2 -o bareloop bareloop.c && ./bareloop [SECONDS]
 * prints stops per second.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void child(void) {
	char *p = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (size_t len = 8192;; len = 12288 - len)
		p = mremap(p, len, 12288 - len, MREMAP_MAYMOVE);
}

int main(int argc, char **argv) {
	double seconds = argc > 1 ? atof(argv[1]) : 1;
	uint64_t at = (uint64_t)mremap;
	unsigned char *code = (unsigned char *)at;
	if (code[0] != 0x48 || code[1] != 0x83 || code[2] != 0xec) {
		fprintf(stderr, "mremap does not begin with sub $imm8,%%rsp here\n");
		return 2;
	}
	long frame = (signed char)code[3];
	pid_t pid = fork();
	if (!pid)
		child();
	int st;
	if (ptrace(PTRACE_SEIZE, pid, 0, 0) || ptrace(PTRACE_INTERRUPT, pid, 0, 0) || waitpid(pid, &st, __WALL) != pid) {
		perror("ptrace");
		return 2;
	}
	long word = ptrace(PTRACE_PEEKTEXT, pid, at, 0);
	ptrace(PTRACE_POKETEXT, pid, at, (word & ~0xffL) | 0xcc);
	ptrace(PTRACE_CONT, pid, 0, 0);
	long stops = 0;
	double from = now(), t;
	do {
		struct user_regs_struct r;
		if (waitpid(pid, &st, __WALL) != pid || !WIFSTOPPED(st) || WSTOPSIG(st) != SIGTRAP)
			return 1;
		ptrace(PTRACE_GETREGS, pid, 0, &r);
		r.rsp -= frame; /* the flags are dead at a function's start */
		r.rip = at + 4;
		ptrace(PTRACE_SETREGS, pid, 0, &r);
		ptrace(PTRACE_CONT, pid, 0, 0);
		stops++;
	} while ((t = now() - from) < seconds);
	kill(pid, SIGKILL);
	printf("%.0f\n", stops / t);
	return 0;
}
