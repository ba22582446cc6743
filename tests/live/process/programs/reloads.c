/* For each line of its input it loads the library that its argument names, lets its `once` answer, and unloads it. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
	char *line = NULL;
	size_t room = 0;
	long number;

	printf("ready\n");
	fflush(stdout);
	for (number = 0; argc > 1 && getline(&line, &room, stdin) > 0; number++) {
		void *library = dlopen(argv[1], RTLD_NOW);
		void (*once)(long, const char *) = library ? (void (*)(long, const char *))dlsym(library, "once") : NULL;

		if (!once) {
			fprintf(stderr, "%s\n", dlerror());
			return 1;
		}
		once(number, line);
		dlclose(library);
	}
	return 0;
}
