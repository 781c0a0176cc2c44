/*
 * Runs code with given registers and says what it left behind, case by case
 * from standard input to standard output:
 *
 *   aarch64-linux-gnu-gcc -O1 -static -nostdlib -ffreestanding \
 *     -Wl,--defsym=code=0x2000000 -o oracle oracle.c
 *   qemu-aarch64-static oracle <cases >results
 *
 * The code lies at `at` in a page at CODE and is left for `next` or `taken`; the
 * stack pointer points into a page at STACK, whose changed words are reported.
 */
typedef unsigned long u64;
typedef unsigned int u32;

#define CODE 0x2000000UL
#define STACK 0x3000000UL
#define PAGE 0x10000UL
#define CHANGES 4

static struct {
	u64 at, next, taken;
	u64 x[31], sp, nzcv;
	u32 code[10];
} in;

static struct result {
	u64 x[31], sp, nzcv, landed;
	u64 changes, where[CHANGES], what[CHANGES];
} out;

/* Saved by run, restored by the two ways out of it. */
u64 saved[14];
struct result *result = &out;

__asm__(
	".text\n"
	".macro finish name, landed\n"
	".global \\name\n"
	"\\name: msr tpidr_el0, x0\n" /* the one register that no code under test uses */
	"	adrp x0, result\n"
	"	ldr x0, [x0, :lo12:result]\n"
	"	stp x1, x2, [x0, #8]\n	stp x3, x4, [x0, #24]\n	stp x5, x6, [x0, #40]\n"
	"	stp x7, x8, [x0, #56]\n	stp x9, x10, [x0, #72]\n	stp x11, x12, [x0, #88]\n"
	"	stp x13, x14, [x0, #104]\n	stp x15, x16, [x0, #120]\n	stp x17, x18, [x0, #136]\n"
	"	stp x19, x20, [x0, #152]\n	stp x21, x22, [x0, #168]\n	stp x23, x24, [x0, #184]\n"
	"	stp x25, x26, [x0, #200]\n	stp x27, x28, [x0, #216]\n	stp x29, x30, [x0, #232]\n"
	"	mrs x1, tpidr_el0\n	str x1, [x0]\n"
	"	mov x1, sp\n	mrs x2, nzcv\n	stp x1, x2, [x0, #248]\n"
	"	mov x1, #\\landed\n	str x1, [x0, #264]\n"
	"	adrp x1, saved\n	add x1, x1, :lo12:saved\n"
	"	ldp x19, x20, [x1]\n	ldp x21, x22, [x1, #16]\n	ldp x23, x24, [x1, #32]\n"
	"	ldp x25, x26, [x1, #48]\n	ldp x27, x28, [x1, #64]\n	ldp x29, x30, [x1, #80]\n"
	"	ldr x2, [x1, #96]\n	mov sp, x2\n	ret\n"
	".endm\n"
	"finish at_next, 0\n"
	"finish at_taken, 1\n"
	".global run\n"
	"run:\n" /* x0: &in.x */
	"	adrp x1, saved\n	add x1, x1, :lo12:saved\n"
	"	stp x19, x20, [x1]\n	stp x21, x22, [x1, #16]\n	stp x23, x24, [x1, #32]\n"
	"	stp x25, x26, [x1, #48]\n	stp x27, x28, [x1, #64]\n	stp x29, x30, [x1, #80]\n"
	"	mov x2, sp\n	str x2, [x1, #96]\n"
	"	ldp x1, x2, [x0, #248]\n	mov sp, x1\n	msr nzcv, x2\n"
	"	ldp x1, x2, [x0, #8]\n	ldp x3, x4, [x0, #24]\n	ldp x5, x6, [x0, #40]\n"
	"	ldp x7, x8, [x0, #56]\n	ldp x9, x10, [x0, #72]\n	ldp x11, x12, [x0, #88]\n"
	"	ldp x13, x14, [x0, #104]\n	ldp x15, x16, [x0, #120]\n	ldp x17, x18, [x0, #136]\n"
	"	ldp x19, x20, [x0, #152]\n	ldp x21, x22, [x0, #168]\n	ldp x23, x24, [x0, #184]\n"
	"	ldp x25, x26, [x0, #200]\n	ldp x27, x28, [x0, #216]\n	ldp x29, x30, [x0, #232]\n"
	"	ldr x0, [x0]\n"
	"	b code\n" /* CODE, where a branch to the case's code is */
);

extern void run(u64 *), at_next(void), at_taken(void);

static long call(long nr, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
	register u64 x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
	register u64 x3 __asm__("x3") = d, x4 __asm__("x4") = e, x5 __asm__("x5") = f, x8 __asm__("x8") = nr;
	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5), "r"(x8) : "memory");
	return x0;
}

static int all(long nr, int fd, void *p, u64 n)
{
	char *b = p;
	while (n > 0) {
		long got = call(nr, fd, (u64)b, n, 0, 0, 0);
		if (got <= 0)
			return 0;
		b += got;
		n -= got;
	}
	return 1;
}

static void branch(u64 at, u64 to)
{
	*(volatile u32 *)at = 0x14000000 | ((to - at) >> 2 & 0x3ffffff);
}

void _start(void)
{
	volatile u64 *stack = (u64 *)STACK;
	call(222, CODE, PAGE, 7, 0x32, -1, 0); /* mmap: private, anonymous, fixed */
	call(222, STACK, PAGE, 3, 0x32, -1, 0);
	while (all(63, 0, &in, sizeof in)) {
		for (u64 i = 0; i < PAGE / 8; i++)
			stack[i] = ~i;
		branch(CODE, in.at);
		for (int i = 0; i < 10; i++)
			((volatile u32 *)in.at)[i] = in.code[i];
		branch(in.taken, (u64)at_taken);
		branch(in.next, (u64)at_next);
		for (u64 a = CODE; a < CODE + PAGE; a += 64)
			__asm__ volatile("dc cvau, %0\n dsb ish\n ic ivau, %0" ::"r"(a) : "memory");
		__asm__ volatile("dsb ish\n isb" ::: "memory");
		run(in.x);
		out.changes = 0;
		for (u64 i = 0; i < PAGE / 8; i++) {
			if (stack[i] == ~i)
				continue;
			if (out.changes < CHANGES) {
				out.where[out.changes] = STACK + 8 * i;
				out.what[out.changes] = stack[i];
			}
			out.changes++;
		}
		if (!all(64, 1, &out, sizeof out))
			break;
	}
	call(94, 0, 0, 0, 0, 0, 0);
}
