/* Writes each line of a file to a tracefs events file, and says what the kernel answered.
 *
 *   definitions EVENTS INPUT     EVENTS: kprobe_events, uprobe_events, dynamic_events
 *
 * An empty line of INPUT begins anew: all events are deleted. For every other line: `= ERRNO`, then the events listed
 * (`L ...`) where it was taken, the error log (`E ...`) where not, and `.`.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TRACEFS "/sys/kernel/tracing/"

static char content[1 << 20];

static void set(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_TRUNC);

	if (fd < 0 || (*text && write(fd, text, strlen(text)) < 0))
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
	close(fd);
}

static void show(const char *path, char mark)
{
	int fd = open(path, O_RDONLY);
	ssize_t size, all = 0;

	while ((size = read(fd, content + all, sizeof content - 1 - all)) > 0)
		all += size;
	close(fd);
	content[all] = 0;
	for (char *line = content, *end; *line; line = end + 1) {
		end = strchr(line, '\n');
		if (end)
			*end = 0;
		printf("%c %s\n", mark, line);
		if (!end)
			break;
	}
}

int main(int argc, char **argv)
{
	char path[256], *line = NULL;
	size_t room = 0;
	ssize_t size;
	int used = 0;
	FILE *input = argc == 3 ? fopen(argv[2], "r") : NULL;

	if (!input)
		return 2;
	snprintf(path, sizeof path, TRACEFS "%s", argv[1]);
	set("/sys/kernel/rcu_expedited", "1");
	set("/proc/sys/debug/kprobes-optimization", "0");
	set(path, "");
	set(TRACEFS "error_log", "");
	for (; (size = getline(&line, &room, input)) > 0;) {
		int fd, number = 0;

		if (!strcmp(line, "\n")) {
			if (used) /* what empties no file takes a third of a second on 5.10, too */
				set(path, "");
			used = 0;
			continue;
		}
		fd = open(path, O_WRONLY | O_APPEND);
		if (write(fd, line, size) != size)
			number = errno;
		close(fd);
		printf("= %d\n", number);
		if (number) {
			show(TRACEFS "error_log", 'E');
			set(TRACEFS "error_log", "");
		} else {
			used = 1;
			show(path, 'L');
		}
		printf(".\n");
	}
	set(path, "");
	set("/proc/sys/debug/kprobes-optimization", "1");
	set("/sys/kernel/rcu_expedited", "0");
	return 0;
}
