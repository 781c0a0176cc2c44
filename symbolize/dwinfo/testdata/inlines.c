/* Nested inlined calls, a cold part, a nested GNU C function, bit-fields,
 * anonymous members. See TestMain's recipes in unit_test.go; lines matter. */
#include <stdio.h>
#include <stdlib.h>

typedef struct {
	unsigned low : 3;
	unsigned mid : 7;
	unsigned long wide : 40;
	signed char tail;
} bits;

struct outer {
	int first;
	union {
		struct {
			short a, b;
		};
		int word;
	};
	bits packed;
	struct inner {
		char name[2][5];
		double values[3];
	} in[2];
	struct inner one;
	struct outer *next;
	void (*call)(int);
	const volatile long cv;
	char flexible[];
};

struct declared_only;

volatile int sink;
struct outer *head;
struct declared_only *nothing;
bits some_bits;

static inline __attribute__((always_inline)) int leaf(int x)
{
	sink = x; /* leaf body */
	return sink * 3;
}

static inline __attribute__((always_inline)) int middle(int x)
{
	int sum = 0;
	for (int i = 0; i < x; i++) {
		int square = i * i;
		sum += leaf(square); /* middle calls leaf */
	}
	return sum;
}

__attribute__((cold, noinline)) static void complain(int x)
{
	fprintf(stderr, "bad %d\n", x);
}

__attribute__((noinline)) int split(int x)
{
	if (__builtin_expect(x < 0, 0)) {
		complain(x);
		sink = x;
		abort(); /* cold part */
	}
	return middle(x) + 1; /* split calls middle */
}

__attribute__((noinline)) int with_nested(int x)
{
	int k = x;
	__attribute__((noinline)) int nested(int y)
	{
		sink += k; /* nested body */
		return y + k;
	}
	int (*volatile f)(int) = nested;
	return f(x);
}

int main(int argc, char **argv)
{
	(void)argv;
	return split(argc) + with_nested(argc) == 0;
}
