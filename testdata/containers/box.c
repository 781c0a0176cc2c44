/*
 * box starts a program in a container, and another one beside it, by the same
 * system calls that container engines use. It is for tests: it isolates nobody
 * from anybody.
 *
 *   box run [-u] [-c] [-g UID] LOWERDIRS SCRATCH PIDFILE PROGRAM ARG...
 *     in new mount and pid namespaces, as pid 1, on an overlayfs whose upper
 *     layer is a tmpfs mounted at SCRATCH; the host's pid goes to PIDFILE.
 *     -u  in a user namespace, too: its root is 100000 outside
 *     -c  by chroot, with the host's files still mounted; else by pivot_root
 *     -g  as that user
 *
 *   box exec [-s] [-d] [-n] [-g UID] [-r ROOT] PID PROGRAM ARG...
 *     in the namespaces of PID, as root with CAP_SYS_PTRACE alone.
 *     -d  with CAP_DAC_OVERRIDE, too, which engines give by default
 *     -n  with no capability at all
 *     -s  perf_event_open is refused, as the engines' seccomp profiles do
 *     -g  as that user, without any capability
 *     -r  on the files under ROOT, as a sidecar that shares only the pids
 *
 * Build: gcc -static
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static void must(int ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "box: %s: %s\n", what, strerror(errno));
	exit(125);
}

static char *path(const char *fmt, const char *a)
{
	char *p;
	must(asprintf(&p, fmt, a) >= 0, "asprintf");
	return p;
}

static void put(const char *file, const char *text)
{
	int fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	must(fd >= 0, file);
	must(write(fd, text, strlen(text)) == (ssize_t)strlen(text), file);
	close(fd);
}

/* enter makes root the root of this mount namespace. */
static void enter(const char *root)
{
	must(!chdir(root), root);
	must(!syscall(SYS_pivot_root, ".", "."), "pivot_root");
	must(!umount2(".", MNT_DETACH), "umount the old root");
	must(!chdir("/"), "chdir /");
}

static void own_mounts(void)
{
	must(!mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), "make mounts private");
}

/* devices gives a container the few that its programs open. */
static void devices(const char *root)
{
	static const struct { const char *name; int minor; } dev[] = {{"null", 3}, {"zero", 5}, {"urandom", 9}};
	char *dir = path("%s/dev", root);
	mkdir(dir, 0755);
	must(!mount("tmpfs", dir, "tmpfs", 0, "mode=755"), "mount tmpfs");
	for (size_t i = 0; i < sizeof dev / sizeof *dev; i++) {
		char *p = path(path("%s/%%s", dir), dev[i].name);
		must(!mknod(p, S_IFCHR | 0666, makedev(1, dev[i].minor)) && !chmod(p, 0666), p);
	}
}

static void reap(pid_t pid)
{
	int status;
	while (waitpid(pid, &status, 0) < 0)
		must(errno == EINTR, "waitpid");
	exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

static int run(int argc, char **argv)
{
	int opt, user = 0, chrooted = 0, uid = 0, go[2], ready[2];
	char c;
	while ((opt = getopt(argc, argv, "+ucg:")) != -1) {
		user |= opt == 'u';
		chrooted |= opt == 'c';
		if (opt == 'g')
			uid = atoi(optarg);
	}
	argv += optind;
	must(argc - optind >= 4, "run: too few arguments");
	char *lower = argv[0], *scratch = argv[1], *pidfile = argv[2];
	argv += 3;

	must(!pipe2(go, O_CLOEXEC) && !pipe2(ready, O_CLOEXEC), "pipe");
	must(!unshare(CLONE_NEWPID), "unshare");
	pid_t pid = fork();
	must(pid >= 0, "fork");
	if (pid) {
		must(read(ready[0], &c, 1) == 1, "the child"); /* it is in its namespaces */
		char *dir;
		must(asprintf(&dir, "/proc/%d", pid) > 0, "asprintf");
		if (user) {
			put(path("%s/uid_map", dir), "0 100000 65536");
			put(path("%s/gid_map", dir), "0 100000 65536");
		}
		put(pidfile, dir + strlen("/proc/"));
		must(write(go[1], "x", 1) == 1, "pipe");
		close(1); /* the reader of the output must see its end */
		reap(pid);
	}

	must(!prctl(PR_SET_PDEATHSIG, SIGKILL), "prctl");
	must(!unshare(CLONE_NEWNS), "unshare");
	own_mounts();
	must(!mount("tmpfs", scratch, "tmpfs", 0, "mode=755"), "mount tmpfs");
	char *upper = path("%s/upper", scratch), *work = path("%s/work", scratch), *merged = path("%s/merged", scratch), *o;
	must(!mkdir(upper, 0755) && !mkdir(work, 0755) && !mkdir(merged, 0755), "mkdir");
	must(asprintf(&o, "lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work) > 0, "asprintf");
	must(!mount("overlay", merged, "overlay", 0, o), "mount overlay");
	char *proc = path("%s/proc", merged), *var = path("%s/run", merged);
	mkdir(proc, 0755);
	mkdir(var, 0755);
	must(!mount("tmpfs", var, "tmpfs", 0, "mode=1777"), "mount tmpfs");
	must(!mount("proc", proc, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL), "mount proc");
	devices(merged);
	if (!chrooted)
		enter(merged);
	if (user) /* not after chroot: the kernel refuses that */
		must(!unshare(CLONE_NEWUSER), "unshare user");
	if (chrooted)
		must(!chroot(merged) && !chdir("/"), "chroot");
	must(write(ready[1], "x", 1) == 1 && read(go[0], &c, 1) == 1, "the parent");
	must(!setgid(uid) && !setuid(uid), "change the user");
	must(!prctl(PR_SET_PDEATHSIG, SIGKILL), "prctl"); /* setuid has reset it */
	execv(argv[0], argv);
	must(0, argv[0]);
	return 125;
}

/* ns opens one of a process's namespaces, unless it is this one's, too: -1. */
static int ns(const char *pid, const char *which)
{
	struct stat its, ours;
	char *p = path(path("/proc/%s/ns/%%s", pid), which);
	must(!stat(p, &its) && !stat(path("/proc/self/ns/%s", which), &ours), p);
	if (its.st_ino == ours.st_ino)
		return -1;
	int fd = open(p, O_RDONLY | O_CLOEXEC);
	must(fd >= 0, p);
	return fd;
}

static void join(int fd, const char *which)
{
	if (fd >= 0)
		must(!setns(fd, 0), which);
}

static void refuse_perf(void)
{
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_perf_event_open, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {sizeof f / sizeof *f, f};
	must(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog), "seccomp");
}

static int beside(int argc, char **argv)
{
	int opt, quiet = 0, override = 0, none = 0, uid = 0;
	char *root = NULL;
	while ((opt = getopt(argc, argv, "+sdng:r:")) != -1) {
		quiet |= opt == 's';
		override |= opt == 'd';
		none |= opt == 'n';
		if (opt == 'g')
			uid = atoi(optarg);
		if (opt == 'r')
			root = optarg;
	}
	argv += optind;
	must(argc - optind >= 2, "exec: too few arguments");
	char *pid = argv[0], *there = path("/proc/%s/root", pid);
	argv++;
	int mnt = ns(pid, "mnt"), pids = ns(pid, "pid"), user = ns(pid, "user");
	int dir = open(there, O_PATH | O_DIRECTORY | O_CLOEXEC);
	must(dir >= 0, there);
	join(pids, "join the pid namespace");
	if (!root) {
		join(mnt, "join the mount namespace");
		must(!fchdir(dir) && !chroot("."), "chroot");
	}
	pid_t child = fork();
	must(child >= 0, "fork");
	if (child)
		reap(child);
	must(!prctl(PR_SET_PDEATHSIG, SIGKILL), "prctl");
	if (root) {
		char *proc = path("%s/proc", root);
		must(!unshare(CLONE_NEWNS), "unshare");
		own_mounts();
		must(!mount(root, root, NULL, MS_BIND, NULL), "bind");
		mkdir(proc, 0755);
		must(!mount("proc", proc, "proc", 0, NULL), "mount proc");
		devices(root);
		enter(root);
	}
	join(user, "join the user namespace");
	must(!setgid(uid), "setgid");
	if (quiet)
		refuse_perf();
	for (int c = 0; c <= CAP_LAST_CAP; c++)
		if ((none || (c != CAP_SYS_PTRACE && !(override && c == CAP_DAC_OVERRIDE))) && prctl(PR_CAPBSET_DROP, c, 0, 0, 0))
			must(errno == EINVAL, "drop a capability"); /* one that this kernel does not have */
	must(!setuid(uid), "setuid");
	execv(argv[0], argv);
	must(0, argv[0]);
	return 125;
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "run"))
		return run(argc - 1, argv + 1);
	if (argc > 1 && !strcmp(argv[1], "exec"))
		return beside(argc - 1, argv + 1);
	fprintf(stderr, "box: run or exec\n");
	return 125;
}
