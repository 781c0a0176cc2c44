/* Calls getppid in threads that come and go, says "ready", and does what it is
 * told to on standard input: f forks a child that calls it too, e replaces the
 * program by itself. */
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

static void *work(void *arg)
{
	for (int i = 0; i < 200; i++) {
		getppid();
		usleep(100);
	}
	return arg;
}

int main(int argc, char **argv)
{
	char c;
	pthread_t t[2];

	puts("ready");
	fflush(stdout);
	for (;;) {
		for (int i = 0; i < 2; i++)
			pthread_create(&t[i], 0, work, 0);
		for (int i = 0; i < 2; i++)
			pthread_join(t[i], 0);
		if (argc < 2)
			continue;
		if (argv[1][0] == 'f' && fork() == 0) {
			for (;;)
				work(0);
		}
		if (argv[1][0] == 'f')
			argc = 1;
		if (argv[1][0] == 'e')
			execl("/proc/self/exe", argv[0], (char *)0);
	}
}
