/* Loads a library at the first line on standard input, unloads it at the second, and so on; tells when it has. */
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    void *library = NULL;
    int letter;
    while ((letter = getchar()) != EOF) {
        if (letter != '\n')
            continue;
        if (library) {
            dlclose(library);
            library = NULL;
        } else {
            library = dlopen(argv[1], RTLD_NOW);
        }
        puts(library ? "loaded" : "unloaded");
        fflush(stdout);
    }
    return 0;
}
