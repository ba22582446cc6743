/* Says that it runs. */
#include <stdio.h>

int main(void)
{
    puts("go");
    return 0;
}
