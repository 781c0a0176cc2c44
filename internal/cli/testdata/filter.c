// Runs a program under a seccomp filter: filter ERRNO NUMBER... PROGRAM ARG...
// The system calls with these numbers fail with that errno.
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#define CALLS 16

int main(int argc, char **argv)
{
	struct sock_filter f[2 * CALLS + 2];
	int n = 0, i = 2, err = argc > 2 ? atoi(argv[1]) : 0;

	f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (; i < argc && argv[i][0] >= '0' && argv[i][0] <= '9' && n < 2 * CALLS; i++) {
		f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, atoi(argv[i]), 0, 1);
		f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | err);
	}
	f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	if (i >= argc)
		return 2;
	struct sock_fprog p = {n, f};
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p)) {
		perror("seccomp");
		return 1;
	}
	execvp(argv[i], argv + i);
	perror(argv[i]);
	return 1;
}
