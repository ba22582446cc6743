/* Children that are forked one after the other each load a library, call it and unload it, as their parent does in the
   meantime; one is started by posix_spawn in between. Prints how many children ended well and the parent's calls.

   family LIBRARY CHILDREN; a line on standard input begins it. */
#include <dlfcn.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static int use(const char *path)
{
    void *library = dlopen(path, RTLD_NOW);
    long (*inside)(long) = library ? (long (*)(long))dlsym(library, "inside") : NULL;
    int right = inside && inside(21) == 42;
    if (library)
        dlclose(library);
    return right;
}

int main(int argc, char **argv)
{
    long children = atol(argv[2]), i, calls = 0, well = 0;
    char *command[] = {"/bin/true", NULL};
    int status;
    pid_t pid;
    puts("ready");
    fflush(stdout);
    getchar();
    for (i = 0; i < children; i++) {
        pid = fork();
        if (!pid)
            _exit(!use(argv[1]));
        calls += use(argv[1]);
        waitpid(pid, &status, 0);
        well += !status;
        if (!posix_spawn(&pid, command[0], NULL, NULL, command, environ)) {
            waitpid(pid, &status, 0);
            well += !status;
        }
    }
    printf("well %ld\ncalls %ld\n", well, calls);
    return 0;
}
