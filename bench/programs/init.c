/* The first process of a guest: says that it runs, and ends the machine. */
#include <stdio.h>
#include <sys/reboot.h>

int main(void)
{
    puts("bench: init");
    fflush(stdout);
    reboot(RB_AUTOBOOT);
    return 0;
}
