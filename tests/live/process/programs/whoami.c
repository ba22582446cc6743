/* Says as whom it runs. */
#include <stdio.h>
#include <unistd.h>

int main(void)
{
    printf("runs as %d\n", (int)geteuid());
    return 0;
}
