// A process that is number 1 of a pid namespace of its own writes 77 bytes, from a thread.

#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static void *write_it(void *unused)
{
	static char bytes[77];
	int pipes[2];
	return pipe(pipes) || write(pipes[1], bytes, sizeof(bytes)) != sizeof(bytes) ? (void *)1 : NULL;
}

int main(void)
{
	int status = 1;
	pthread_t thread;
	void *result = (void *)1;
	getchar();
	if (unshare(CLONE_NEWPID))
		return 2;
	if (!fork()) {
		pthread_create(&thread, NULL, write_it, NULL);
		pthread_join(thread, &result);
		_exit(result != NULL);
	}
	wait(&status);
	return status != 0;
}
