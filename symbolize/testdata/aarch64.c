/*
 * Calls of every kind, for a test that steps through them and unwinds at each
 * instruction: prologues and epilogues, leaves, tail calls, a frame of unknown
 * size, a large one, libc calling back, signals.
 *
 *   aarch64-linux-gnu-gcc -O2 -g -o aarch64 aarch64.c
 *
 * It prints its mappings, then stops at a brk, from behind which the test steps.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define APART __attribute__((noinline, noclone))

volatile int sink;

APART int leaf(int a) { return a * 3 + sink; }

APART int tail(int a) { return leaf(a + 1); }

APART void handler(int sig) { sink += leaf(sig); }

/* A signal interrupts this one while its return address is in x30 only. */
APART long interrupted_leaf(long pid)
{
	register long x0 __asm__("x0") = pid, x1 __asm__("x1") = SIGUSR1, x8 __asm__("x8") = SYS_kill;
	__asm__ volatile("svc #0\n nop\n nop" : "+r"(x0) : "r"(x1), "r"(x8) : "memory");
	return x0;
}

APART int unknown_size(int n)
{
	char *p = __builtin_alloca(n * 8);
	memset(p, n, n * 8);
	return tail(p[n]) + p[n - 1];
}

APART int large(int n)
{
	volatile char p[70000];
	p[n] = 1;
	p[sizeof p - n - 1] = 2;
	return leaf(p[n]) + p[sizeof p - n - 1];
}

APART int many(int a, int b, int c, int d, int e, int f, int g, int h)
{
	int x = leaf(a), y = leaf(b), z = leaf(c), w = leaf(d);
	int v = leaf(e), u = leaf(f), t = leaf(g), s = leaf(h);
	return x ^ y ^ z ^ w ^ v ^ u ^ t ^ s ^ leaf(x + y + z + w + v + u + t + s);
}

APART int recurse(int n) { return n == 0 ? leaf(0) : recurse(n - 1) + n * leaf(n); }

APART int compare(const void *a, const void *b)
{
	return leaf(*(const int *)a) - leaf(*(const int *)b);
}

int (*volatile through)(int) = unknown_size;

APART int scenario(int n)
{
	int v[4] = {3, 1, 4, 1};
	char text[64];
	int got = tail(n) + through(n + 6) + large(n) + many(1, 2, 3, 4, 5, 6, 7, n) + recurse(3);
	qsort(v, 4, sizeof *v, compare);
	got += interrupted_leaf(getpid());
	raise(SIGUSR1);
	snprintf(text, sizeof text, "%d %s", got, "text");
	return got + text[0];
}

int main(void)
{
	char b[8192];
	int fd = open("/proc/self/maps", O_RDONLY);
	for (ssize_t n; (n = read(fd, b, sizeof b)) > 0;)
		if (write(1, b, n) != n)
			return 1;
	if (write(1, "\n", 1) != 1) /* the last line of the maps */
		return 1;
	__asm__ volatile("brk #0");
	signal(SIGUSR1, handler);
	sink = scenario(2);
	return sink == 0;
}
