/* A worker for tests: threads that call mremap and mmap in a loop, and
 * counters in shared memory (argv[1], a file of one page) that the test reads.
 *
 *   loop FILE THREADS MODE [USLEEP]
 * MODE: hot (mremap), sleep (mremap, then usleep), fork (hot, and fork),
 * spawn (posix_spawn /bin/true), exec (hot for 0.2 s, then exec itself in mode
 * hot), exit (hot for 0.2 s, then exit 7), churn (hot, and short threads),
 * vector (values wait in vector registers, then mremap),
 * masking (hot, blocks all signals for a mremap now and then, and sleeps),
 * trap (raise SIGTRAP after 0.2 s), own (has a SIGTRAP handler), idle (pause).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct shared {
	volatile uint64_t loops;    /* of all threads */
	volatile uint64_t bad;      /* results of mremap that were wrong */
	volatile uint64_t signals;  /* SIGUSR1 seen */
	volatile uint64_t sum;      /* of their si_value */
	volatile uint64_t children; /* that ended with status 0 */
	volatile uint64_t failed;   /* children that ended otherwise */
	volatile uint64_t traps;    /* SIGTRAP seen by an own handler */
	volatile uint64_t execs;
};

static struct shared *sh;
static const char *mode;
static int pausing;
extern char **environ;

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void on_usr1(int s, siginfo_t *si, void *u) {
	(void)s; (void)u;
	__sync_fetch_and_add(&sh->signals, 1);
	__sync_fetch_and_add(&sh->sum, (uint64_t)si->si_value.sival_int);
}

static void on_trap(int s) { (void)s; __sync_fetch_and_add(&sh->traps, 1); }

static void once(void) {
	static __thread char *block;
	static __thread size_t len = 4096;
	if (!block)
		block = mmap(0, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	size_t to = len == 4096 ? 8192 : 4096;
	char *p = mremap(block, len, to, MREMAP_MAYMOVE);
	if (p == MAP_FAILED)
		__sync_fetch_and_add(&sh->bad, 1);
	else {
		block = p;
		len = to;
		if (*p != 0 && *p != 'x')
			__sync_fetch_and_add(&sh->bad, 1);
		*p = 'x';
	}
	__sync_fetch_and_add(&sh->loops, 1);
	if (pausing)
		usleep(pausing);
}

#ifdef __aarch64__
#define TARGET
#define WORDS 2
#define KEEP(in, out) __asm__ volatile("ldr q2, [%0]\n ldr q9, [%0]\n ldr q31, [%0]\n" \
			 "mov w9, #0x40000\n 1: subs w9, w9, #1\n b.ne 1b\n" \
			 "str q2, [%1]\n str q9, [%1, #16]\n str q31, [%1, #32]\n" \
			 : : "r"(in), "r"(out) : "x9", "v2", "v9", "v31", "cc", "memory")
#else
#define TARGET __attribute__((target("avx2")))
#define WORDS 4
#define KEEP(in, out) __asm__ volatile("vmovdqu (%0), %%ymm2\n vmovdqu (%0), %%ymm7\n vmovdqu (%0), %%ymm15\n" \
			 "mov $300000, %%eax\n 1: dec %%eax\n jnz 1b\n" \
			 "vmovdqu %%ymm2, (%1)\n vmovdqu %%ymm7, 32(%1)\n vmovdqu %%ymm15, 64(%1)\n" \
			 : : "r"(in), "r"(out) : "rax", "xmm2", "xmm7", "xmm15", "cc", "memory")
#endif

/* hold keeps values in vector registers for some hundred microseconds, and
 * counts what comes out changed. */
TARGET static void hold(void) {
	static uint64_t v;
	uint64_t in[WORDS], out[3][WORDS];
	for (int i = 0; i < WORDS; i++)
		in[i] = ++v * 0x9e3779b97f4a7c15;
	KEEP(in, out);
	for (int i = 0; i < 3; i++)
		if (memcmp(in, out[i], sizeof in))
			__sync_fetch_and_add(&sh->bad, 1);
}

static void *brief(void *a) {
	for (int i = 0; i < 20; i++)
		once();
	return a;
}

static void child_done(pid_t pid) {
	int st;
	while (waitpid(pid, &st, 0) < 0)
		;
	__sync_fetch_and_add(WIFEXITED(st) && !WEXITSTATUS(st) ? &sh->children : &sh->failed, 1);
}

static void extra(char **argv, double began) {
	if (!strcmp(mode, "fork")) {
		pid_t pid = fork();
		if (!pid) {
			for (int i = 0; i < 50; i++)
				once();
			/* inherited: SIGTRAP must have its default action again */
			struct sigaction sa;
			sigaction(SIGTRAP, 0, &sa);
			_exit(sa.sa_handler != SIG_DFL);
		}
		child_done(pid);
	} else if (!strcmp(mode, "spawn")) {
		pid_t pid;
		char *a[] = {"sh", "-c", "grep -q 'SigIgn:.*[02468ace].$' /proc/self/status", 0};
		if (!posix_spawn(&pid, "/bin/sh", 0, 0, a, environ))
			child_done(pid);
	} else if (!strcmp(mode, "exec") && now() - began > 0.2) {
		sh->execs++;
		argv[3] = "hot";
		execv("/proc/self/exe", argv);
	} else if (!strcmp(mode, "exit") && now() - began > 0.2) {
		exit(7);
	} else if (!strcmp(mode, "trap") && now() - began > 0.2) {
		raise(SIGTRAP);
	} else if (!strcmp(mode, "vector")) {
		for (int i = 0; i < 20; i++)
			hold();
	} else if (!strcmp(mode, "masking")) {
		sigset_t all, old;
		sigfillset(&all);
		pthread_sigmask(SIG_BLOCK, &all, &old);
		once();
		pthread_sigmask(SIG_SETMASK, &old, 0);
		usleep(3000);
	} else if (!strcmp(mode, "churn")) {
		pthread_t t;
		pthread_create(&t, 0, brief, 0);
		pthread_join(t, 0);
	}
}

static void *forever(void *a) {
	for (;;)
		once();
	return a;
}

int main(int argc, char **argv) {
	if (argc < 4)
		return 2;
	int fd = open(argv[1], O_RDWR);
	sh = mmap(0, sizeof *sh, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (sh == MAP_FAILED)
		return 2;
	mode = argv[3];
	alarm(120); /* no test lasts that long; one that is killed leaves nobody */
	pausing = argc > 4 ? atoi(argv[4]) : 0;
	struct sigaction sa = {.sa_sigaction = on_usr1, .sa_flags = SA_SIGINFO | SA_RESTART};
	sigaction(SIGUSR1, &sa, 0);
	if (!strcmp(mode, "own"))
		signal(SIGTRAP, on_trap);
	for (int i = 1; i < atoi(argv[2]); i++) {
		pthread_t t;
		pthread_create(&t, 0, forever, 0);
	}
	double began = now();
	for (;;) {
		if (!strcmp(mode, "idle")) {
			pause();
			continue;
		}
		for (int i = 0; i < 20; i++)
			once();
		if (!strcmp(mode, "own"))
			raise(SIGTRAP);
		extra(argv, began);
	}
}
