/* Loaded into a real PHP with LD_PRELOAD: makes it count what happens to it, in
 * a file of one page that the harness reads ($CHAOS_FILE), and do what the
 * harness asks for there. PHP scripts talk to it by calling usleep() with
 * numbers that mean something else here.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* Keep in step with shared.go. */
struct shared {
	volatile uint64_t loops;    /* progress */
	volatile uint64_t bad;      /* results that were wrong */
	volatile uint64_t usr1;     /* SIGUSR1 seen */
	volatile uint64_t queued;   /* queued signals seen */
	volatile uint64_t disorder; /* … whose value was not the last one plus one */
	volatile uint64_t last;     /* … value of the last one */
	volatile uint64_t children; /* that ended as they should */
	volatile uint64_t failed;   /* children that ended otherwise */
	volatile uint64_t status;   /* … wait status of the last such one */
	volatile uint64_t inherited;/* forked children that had an action for SIGTRAP */
	volatile uint64_t execs;
	volatile uint64_t cmd;      /* what to do next; 0 once it is being done */
	volatile uint64_t threads;  /* threads that ended as they should */
	volatile uint64_t ready;    /* threads that loop */
};

enum { CMD_FORK = 1, CMD_SPAWN, CMD_EXEC, CMD_EXIT, CMD_THREADS };
enum { CALL_TICK = 770001, CALL_BAD, CALL_LOOP };
enum { MAX_CHILDREN = 32, SEED_BYTE = 'x', MAX_CPU = 120, MAX_AGE = 300 };

static struct shared none, *sh = &none;
static pid_t kids[MAX_CHILDREN];
static char **args;
extern char **environ;

#define INC(f) __sync_fetch_and_add(&sh->f, 1)

static void on_usr1(int s) { (void)s; INC(usr1); }

static void on_queued(int s, siginfo_t *si, void *u) {
	(void)s; (void)u;
	uint64_t v = (uint64_t)(unsigned)si->si_value.sival_int;
	if (v != sh->last + 1 || si->si_code != SI_QUEUE)
		INC(disorder);
	sh->last = v;
	INC(queued);
}

/* Grows and shrinks a block, and checks what is in it. */
static void once(void) {
	static __thread char *block;
	static __thread size_t len = 4096;
	if (!block && (block = mmap(0, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) == MAP_FAILED)
		_exit(90);
	size_t to = len == 4096 ? 8192 : 4096;
	char *p = mremap(block, len, to, MREMAP_MAYMOVE);
	if (p == MAP_FAILED)
		INC(bad);
	else {
		block = p;
		len = to;
		if (*p != 0 && *p != SEED_BYTE)
			INC(bad);
		*p = SEED_BYTE;
	}
	INC(loops);
}

static void *brief(void *a) {
	for (int i = 0; i < 50; i++)
		once();
	INC(threads);
	return a;
}

static void *forever(void *a) {
	INC(ready);
	for (;;)
		once();
	return a;
}

static void remember(pid_t pid) {
	for (int i = 0; i < MAX_CHILDREN; i++)
		if (!kids[i]) {
			kids[i] = pid;
			return;
		}
	INC(bad);
}

/* Takes the ends of children. It never waits: the worker keeps running. */
static void reap(void) {
	for (int i = 0; i < MAX_CHILDREN; i++) {
		int st;
		if (!kids[i] || waitpid(kids[i], &st, WNOHANG) != kids[i])
			continue;
		kids[i] = 0;
		if (WIFEXITED(st) && !WEXITSTATUS(st))
			INC(children);
		else {
			sh->status = (uint64_t)(unsigned)st;
			INC(failed);
		}
	}
}

static void do_fork(void) {
	pid_t pid = fork();
	if (pid < 0)
		INC(bad);
	if (pid > 0)
		remember(pid);
	if (pid)
		return;
	struct sigaction sa;
	sigaction(SIGTRAP, 0, &sa);
	if (sa.sa_handler != SIG_DFL)
		INC(inherited);
	sh = &none; /* it is not the worker's progress */
	for (int i = 0; i < 500; i++)
		once();
	_exit(none.bad != 0);
}

static void do_spawn(void) {
	char *a[] = {"true", 0};
	pid_t pid;
	if (posix_spawn(&pid, "/bin/true", 0, 0, a, environ))
		INC(bad);
	else
		remember(pid);
	pid = vfork();
	if (!pid) {
		execve("/bin/true", a, environ);
		_exit(91);
	}
	if (pid > 0)
		remember(pid);
}

static void start(void *(*f)(void *), int detached) {
	pthread_t t;
	sigset_t set, old;
	if (getenv("CHAOS_MASKED"))
		sigfillset(&set);
	else {
		/* Counted signals are the main thread's, so that their order can
		 * be seen. */
		sigemptyset(&set);
		sigaddset(&set, SIGUSR1);
		sigaddset(&set, SIGRTMIN + 5);
	}
	pthread_sigmask(SIG_BLOCK, &set, &old);
	if (pthread_create(&t, 0, f, 0))
		INC(bad);
	else if (detached)
		pthread_detach(t);
	pthread_sigmask(SIG_SETMASK, &old, 0);
}

static void obey(void) {
	uint64_t cmd = sh->cmd;
	reap();
	if (!cmd)
		return;
	sh->cmd = 0;
	switch (cmd) {
	case CMD_FORK:
		do_fork();
		break;
	case CMD_SPAWN:
		do_spawn();
		break;
	case CMD_EXEC:
		INC(execs);
		execv("/proc/self/exe", args);
		INC(bad);
		break;
	case CMD_EXIT:
		_exit(7);
	case CMD_THREADS:
		for (int i = 0; i < 4; i++)
			start(brief, 1);
	}
}

static void loop_forever(void) {
	int n = getenv("CHAOS_THREADS") ? atoi(getenv("CHAOS_THREADS")) : 1;
	for (int i = 1; i < n; i++)
		start(forever, 0);
	while (sh->ready + 1 < (uint64_t)n)
		sched_yield();
	INC(ready);
	for (;;) {
		for (int i = 0; i < 20; i++)
			once();
		obey();
	}
}

int usleep(useconds_t us) {
	static int (*real)(useconds_t);
	switch (us) {
	case CALL_TICK:
		INC(loops);
		obey();
		return 0;
	case CALL_BAD:
		INC(bad);
		return 0;
	case CALL_LOOP:
		loop_forever();
	}
	if (!real)
		real = (int (*)(useconds_t))dlsym(RTLD_NEXT, "usleep");
	return real(us);
}

__attribute__((constructor)) static void init(int argc, char **argv) {
	const char *file = getenv("CHAOS_FILE");
	if (!file || strncmp(program_invocation_short_name, "php", 3))
		return; /* a program that PHP has started */
	int fd = open(file, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return;
	void *p = mmap(0, sizeof none, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (p == MAP_FAILED)
		return;
	sh = p;
	if (!(args = calloc((size_t)argc + 1, sizeof *args)))
		return;
	for (int i = 0; i < argc; i++)
		args[i] = strdup(argv[i]); /* PHP writes its title over argv */
	/* A worker whose harness was killed must not stay. */
	struct rlimit cpu = {MAX_CPU, MAX_CPU}, core = {0, 0};
	setrlimit(RLIMIT_CPU, &cpu);
	setrlimit(RLIMIT_CORE, &core);
	alarm(MAX_AGE);
	struct sigaction sa = {.sa_handler = on_usr1, .sa_flags = SA_RESTART};
	sigaction(SIGUSR1, &sa, 0);
	sa.sa_sigaction = on_queued;
	sa.sa_flags = SA_SIGINFO | SA_RESTART;
	sigaction(SIGRTMIN + 5, &sa, 0);
}
