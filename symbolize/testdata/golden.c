/*
 * A stack for testdata/golden.json, which go test -update records:
 *
 *   aarch64-linux-gnu-gcc -O2 -static -nostdlib -mbranch-protection=pac-ret \
 *     -Wl,--build-id=none -o golden golden.c
 *   qemu-aarch64-static -cpu max -g SOCKET golden, up to the brk
 *
 * Return addresses are signed; one frame has no fixed size.
 */
#define APART __attribute__((noinline, noclone))

volatile int sink;

APART int leaf(int a)
{
	__asm__ volatile("brk #0");
	return a + sink;
}

APART int unknown_size(int n)
{
	volatile char p[n * 8];
	p[n] = 1;
	return leaf(p[n]) + p[0];
}

APART int outer(int a, int b)
{
	int x = unknown_size(a);
	return x * unknown_size(b) + a;
}

int main(void) { return outer(7, sink) + 1; }

__asm__(".global _start\n"
	".type _start, %function\n"
	"_start: .cfi_startproc\n"
	"	.cfi_undefined x30\n"
	"	mov x29, #0\n"
	"	bl main\n"
	"	mov x8, #93\n" /* exit */
	"	svc #0\n"
	"	.cfi_endproc\n"
	".size _start, . - _start\n");
