"""A program of our own to probe, compiled once."""

import re
import subprocess

import pytest
from victim import Victim

VICTIM = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#define NOINLINE __attribute__((noinline))
NOINLINE long work(long a, long b) { __asm__ volatile("" ::: "memory"); return a * 3 + b; }
NOINLINE long other(long a) { __asm__ volatile("" ::: "memory"); return a + 1; }
NOINLINE long deep(long n) {
    if (n <= 0) return 0;
    long r = deep(n - 1);
    __asm__ volatile("" ::: "memory");
    return r + 1;
}
__attribute__((naked)) void locked(void) { __asm__("lock addl $0,(%rsp)\\n ret"); }
int main(void) {
    char line[64];
    long a, b;
    while (fgets(line, sizeof line, stdin)) {
        char what = line[0];
        long n = atol(line + 1), sum = 0;
        for (long i = 0; i < n; i++)
            sum += what == 'w' ? work(i, 7) : what == 'o' ? other(i) : deep(3);
        printf("%ld\\n", sum);
        fflush(stdout);
    }
    return 0;
}
"""


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("victim")
    source = folder / "victim.c"
    source.write_text(VICTIM)
    path = folder / "victim"
    subprocess.run(["gcc", "-O1", "-w", "-o", str(path), str(source)], check=True)
    return path


@pytest.fixture(scope="session")
def offsets(program):
    """File offsets of the functions (in a small PIE they are their addresses)."""
    listing = subprocess.run(["nm", str(program)], check=True, capture_output=True, text=True).stdout
    return {name: int(address, 16) for address, name in re.findall(r"^([0-9a-f]+) [Tt] (\w+)$", listing, re.MULTILINE)}


@pytest.fixture
def victim(program):
    running = Victim(program)
    yield running
    running.close()
