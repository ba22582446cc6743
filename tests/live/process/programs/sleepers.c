/* Threads asleep in every kind of blocking call. None may see EINTR, as none gets a signal; after a line on standard
 * input all are woken and what they saw is printed. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone))
static int go[2], pair[2], semaphores, notify, epoll;
static volatile int interrupted;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static int woken;

static void saw(const char *what, long result)
{
    if (result < 0 && errno == EINTR) {
        printf("%s: interrupted\n", what);
        interrupted++;
    }
}

NOINLINE void in_epoll(void)
{
    struct epoll_event event;
    saw("epoll_wait", epoll_wait(epoll, &event, 1, -1));
}
NOINLINE void in_read(void)
{
    char c;
    saw("read", read(go[0], &c, 1));
}
NOINLINE void in_poll(void)
{
    struct pollfd one = {go[0], POLLIN, 0};
    saw("poll", poll(&one, 1, -1));
}
NOINLINE void in_ppoll(void)
{
    struct pollfd one = {go[0], POLLIN, 0};
    struct timespec long_time = {100, 0};
    sigset_t set;
    sigemptyset(&set);
    saw("ppoll", ppoll(&one, 1, &long_time, &set));
}
NOINLINE void in_select(void)
{
    fd_set set;
    struct timeval long_time = {100, 0};
    FD_ZERO(&set);
    FD_SET(go[0], &set);
    saw("select", select(go[0] + 1, &set, NULL, NULL, &long_time));
}
NOINLINE void in_sleep(void)
{
    struct timespec time = {1, 500000000}, begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    saw("nanosleep", nanosleep(&time, NULL));
    clock_gettime(CLOCK_MONOTONIC, &end);
    double slept = (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9;
    if (slept < 1.5)
        printf("slept too short: %f\n", slept);
}
NOINLINE void in_condition(void)
{
    pthread_mutex_lock(&lock);
    while (!woken)
        pthread_cond_wait(&condition, &lock);
    pthread_mutex_unlock(&lock);
}
NOINLINE void in_sigtimedwait(void)
{
    struct timespec time = {100, 0};
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    saw("sigtimedwait", sigtimedwait(&set, NULL, &time));
}
NOINLINE void in_semop(void)
{
    struct sembuf take = {0, -1, 0};
    saw("semop", semop(semaphores, &take, 1));
}
NOINLINE void in_recv(void)
{
    char c;
    struct timeval long_time = {100, 0};
    setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &long_time, sizeof long_time);
    saw("recv", recv(pair[0], &c, 1, 0));
}
NOINLINE void in_inotify(void)
{
    char text[256];
    saw("inotify", read(notify, text, sizeof text));
}
NOINLINE void in_wait(void)
{
    int status;
    pid_t child = fork();
    if (!child) {
        char c;
        read(go[0], &c, 1);
        _exit(0);
    }
    saw("waitpid", waitpid(child, &status, 0));
}

static void (*const bodies[])(void) = {in_epoll, in_read, in_poll, in_ppoll, in_select, in_sleep, in_condition,
                                       in_sigtimedwait, in_semop, in_recv, in_inotify, in_wait};
enum { BODIES = sizeof bodies / sizeof bodies[0] };

static void *run(void *body)
{
    (*(void (*const *)(void))body)();
    return NULL;
}

int main(void)
{
    pthread_t ids[BODIES];
    struct epoll_event event = {.events = EPOLLIN};
    struct sembuf give = {0, 1, 0};
    sigset_t set;
    char path[] = "/tmp/sleepersXXXXXX";
    int i;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (pipe(go) || socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
        return 1;
    epoll = epoll_create1(0);
    epoll_ctl(epoll, EPOLL_CTL_ADD, go[0], &event);
    semaphores = semget(IPC_PRIVATE, 1, 0600);
    notify = inotify_init();
    close(mkstemp(path));
    inotify_add_watch(notify, path, IN_ATTRIB);
    for (i = 0; i < BODIES; i++)
        pthread_create(&ids[i], NULL, run, (void *)&bodies[i]);
    puts("asleep");
    fflush(stdout);
    getchar();
    pthread_mutex_lock(&lock);
    woken = 1;
    pthread_cond_broadcast(&condition);
    pthread_mutex_unlock(&lock);
    semop(semaphores, &give, 1);
    pthread_kill(ids[7], SIGUSR1);
    write(pair[1], "x", 1);
    unlink(path);
    write(go[1], "xxxxxxxx", 8);
    for (i = 0; i < BODIES; i++)
        pthread_join(ids[i], NULL);
    semctl(semaphores, 0, IPC_RMID);
    printf("interrupted %d\n", interrupted);
    return 0;
}
