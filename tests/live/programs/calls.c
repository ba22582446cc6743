/*
 * Makes an exact, known number of system calls, so that counts can be compared with the truth.
 *
 *   calls [-w] getppid N            N getppid(2)
 *   calls [-w] openat NAME N        N openat(2) of NAME, whatever comes of it
 *   calls [-w] write SIZE N         N write(2) of SIZE bytes to /dev/null
 *   calls [-w] seek THREADS N       thread t: N lseek(2) to seek_target(t, i) in a file of its own
 *   calls [-w] sleep THREADS MS N   each thread: N epoll_wait(2) of nothing for MS milliseconds, all threads at once
 *   calls [-w] pipes THREADS N      thread t: N read(2) of a pipe that block for 1 ms, until (t + 1) * 100 + i bytes come
 *   calls [-w] epoll DEPTH          a chain of DEPTH epoll instances, each within the next, then one that watches the last
 *   calls [-w] connect N            N connections over the loopback interface
 *   calls [-w] sum TOP N            N times sum_to(TOP), a function of the program that calls itself TOP times
 *
 * -w waits for a line on standard input first, so that probes can name the process. The exit status is 0 if every call
 * did what it should.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MOST_THREADS 64
#define LARGEST 65536

static char buffer[LARGEST];
static int threads, milliseconds;
static long count;
static int pipes[MOST_THREADS][2];
static pthread_barrier_t barrier;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void must(int holds, const char *what)
{
	if (!holds)
		fail(what);
}

static void call_getppid(void)
{
	for (long i = 0; i < count; i++)
		syscall(SYS_getppid);
}

static void call_openat(const char *name)
{
	for (long i = 0; i < count; i++) {
		int fd = syscall(SYS_openat, AT_FDCWD, name, O_RDONLY, 0);
		if (fd >= 0)
			close(fd);
	}
}

static void call_write(long size)
{
	int fd = open("/dev/null", O_WRONLY);
	must(fd >= 0 && size <= LARGEST, "/dev/null");
	for (long i = 0; i < count; i++)
		must(write(fd, buffer, size) == size, "write");
}

static long seek_target(long thread, long i)
{
	return (thread + 1) * 10000000000L + i * 3 + 1;
}

static void *seek(void *argument)
{
	long thread = (long)argument;
	int fd = open("/tmp", O_TMPFILE | O_RDWR, 0600);
	must(fd >= 0, "/tmp");
	pthread_barrier_wait(&barrier);
	for (long i = 0; i < count; i++)
		must(lseek(fd, seek_target(thread, i), SEEK_SET) == seek_target(thread, i), "lseek");
	return NULL;
}

static void *doze(void *argument)
{
	struct epoll_event event;
	int nothing = epoll_create1(0);
	(void)argument;
	for (long i = 0; i < count; i++) {
		pthread_barrier_wait(&barrier);
		must(epoll_wait(nothing, &event, 1, milliseconds) == 0, "epoll_wait");
	}
	return NULL;
}

static void *drain(void *argument)
{
	long thread = (long)argument;
	char own[LARGEST];
	pthread_barrier_wait(&barrier);
	for (long i = 0; i < count; i++)
		must(read(pipes[thread][0], own, sizeof own) == (thread + 1) * 100 + i, "read");
	return NULL;
}

/*
 * Feed the readers in turn, the last first. They go before who feeds them, on the same CPU: whenever that runs, all of
 * them are inside of a read.
 */
static void feed(void)
{
	for (long i = 0; i < count; i++)
		for (int thread = threads - 1; thread >= 0; thread--) {
			long size = (thread + 1) * 100 + i;
			usleep(1000);
			must(write(pipes[thread][1], buffer, size) == size, "feed");
		}
}

static void stay_on_one_cpu(void)
{
	cpu_set_t one;
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	must(sched_setaffinity(0, sizeof one, &one) == 0, "sched_setaffinity");
}

static void let_go_first(pthread_t thread)
{
	struct sched_param first = {.sched_priority = 1};
	errno = pthread_setschedparam(thread, SCHED_FIFO, &first);
	must(errno == 0, "pthread_setschedparam");
}

static void run_threads(void *(*body)(void *))
{
	pthread_t ids[MOST_THREADS];
	must(threads > 0 && threads <= MOST_THREADS, "threads");
	pthread_barrier_init(&barrier, NULL, threads);
	if (body == drain)
		stay_on_one_cpu();
	for (long i = 0; i < threads; i++) {
		must(pipe(pipes[i]) == 0, "pipe");
		must(pthread_create(&ids[i], NULL, body, (void *)i) == 0, "pthread_create");
		if (body == drain)
			let_go_first(ids[i]);
	}
	if (body == drain)
		feed();
	for (int i = 0; i < threads; i++)
		pthread_join(ids[i], NULL);
}

static int watch(int inner)
{
	struct epoll_event event = {.events = EPOLLIN};
	int outer = epoll_create1(0);
	must(outer >= 0 && epoll_ctl(outer, EPOLL_CTL_ADD, inner, &event) == 0, "epoll_ctl");
	return outer;
}

static void call_epoll(int depth)
{
	int last = watch(pipe(pipes[0]) == 0 ? pipes[0][0] : -1);
	for (int i = 1; i < depth; i++)
		last = watch(last);
}

static void call_connect(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof address;
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	must(bind(listener, (struct sockaddr *)&address, length) == 0 && listen(listener, 8) == 0, "listen");
	must(getsockname(listener, (struct sockaddr *)&address, &length) == 0, "getsockname");
	for (long i = 0; i < count; i++) {
		int one = socket(AF_INET, SOCK_STREAM, 0);
		must(connect(one, (struct sockaddr *)&address, length) == 0, "connect");
		int other = accept(listener, NULL, NULL);
		must(write(one, "hello", 5) == 5 && read(other, buffer, 5) == 5, "hello");
		close(one);
		close(other);
	}
	printf("%d\n", ntohs(address.sin_port));
}

__attribute__((noipa)) long sum_to(long top)
{
	if (top <= 0)
		return 0;
	long rest = sum_to(top - 1);
	__asm__ volatile("" : "+r"(rest)); /* or it would become a loop */
	return rest + top;
}

static void call_sum(long top)
{
	for (long i = 0; i < count; i++)
		must(sum_to(top) == top * (top + 1) / 2, "sum");
}

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "-w") == 0) {
		char line[8];
		must(read(0, line, sizeof line) > 0, "standard input");
		argc--, argv++;
	}
	if (argc < 3) {
		fprintf(stderr, "usage: calls [-w] WHAT [...] N\n");
		return 2;
	}
	count = atol(argv[argc - 1]);
	threads = atoi(argv[2]);
	if (strcmp(argv[1], "getppid") == 0)
		call_getppid();
	else if (strcmp(argv[1], "openat") == 0)
		call_openat(argv[2]);
	else if (strcmp(argv[1], "write") == 0)
		call_write(atol(argv[2]));
	else if (strcmp(argv[1], "seek") == 0)
		run_threads(seek);
	else if (strcmp(argv[1], "sleep") == 0)
		milliseconds = atoi(argv[3]), run_threads(doze);
	else if (strcmp(argv[1], "pipes") == 0)
		run_threads(drain);
	else if (strcmp(argv[1], "epoll") == 0)
		call_epoll(atoi(argv[2]));
	else if (strcmp(argv[1], "sum") == 0)
		call_sum(atol(argv[2]));
	else if (strcmp(argv[1], "connect") == 0)
		call_connect();
	else
		return 2;
	return 0;
}
