// The program that the snippets of docs/language.md probe.

#include <stdio.h>
#include <string.h>

struct request {
	int id;
	unsigned short length;
	char name[16];
	struct request *next;
};

__attribute__((noinline)) int parse(struct request *request, const char *text, unsigned long size)
{
	snprintf(request->name, sizeof(request->name), "%.*s", (int)size, text);
	request->length = strlen(request->name);
	return request->next ? request->next->id : request->length;
}

int main(void)
{
	struct request first = {.id = 1}, second = {.id = 2, .next = &first};
	getchar();
	return parse(&second, "GET /index.html", 15) == 1 ? 0 : 1;
}
