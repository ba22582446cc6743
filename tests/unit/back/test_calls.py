"""Entry and return of one call find each other: on a program of our own, by uprobes, in both kinds of table."""

import os
import struct
import subprocess

import pytest
from front.cases import compile_text

from kprobes.compiler.back.bpf import BpfTarget, lower
from kprobes.engines.kernel.engine import KernelEngine
from kprobes.model.mapspec import Count, HashMap
from kprobes.model.plan import Attachment, Plan, PlannedProbe, Site, Way

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="uprobes take root")

# The steps: d = nested calls, f = one call, w = calls in a loop, t = calls in 8 threads, j = a call left by longjmp.
SOURCE = """
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#define NOINLINE __attribute__((noinline))
#define BARRIER __asm__ volatile("" ::: "memory")
static jmp_buf out;
NOINLINE long work(long a, long b) { if (b < 0) longjmp(out, 1); BARRIER; return a * 3 + b; }
NOINLINE long deep(long n, long b) { if (n <= 0) return b; long r = deep(n - 1, b); BARRIER; return r + n; }
static void *many(void *data) { for (long i = 0; i < (long)data; i++) { deep(3, 0); work(i, 1); } return 0; }
int main(int argc, char **argv) {
    pthread_t threads[8];
    for (int at = 1; at < argc; at++) {
        long n = atol(argv[at] + 1);
        if (argv[at][0] == 'd') deep(n, 0);
        else if (argv[at][0] == 'f') work(n, 7);
        else if (argv[at][0] == 'w') for (long i = 0; i < n; i++) work(i, 7);
        else if (argv[at][0] == 'j') { if (!setjmp(out)) work(n, -1); }
        else {
            for (int i = 0; i < 8; i++) pthread_create(&threads[i], 0, many, (void *)n);
            for (int i = 0; i < 8; i++) pthread_join(threads[i], 0);
        }
    }
    return 0;
}
"""

PAIR = """
def h():
    first = arg(1)
    if arg(2) == 7 and first >= 100:
        return
    got = yield
    results[first] = got
    calls.add()
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("calls") / "steps"
    subprocess.run(["gcc", "-O1", "-w", "-pthread", "-x", "c", "-", "-o", path], input=SOURCE, text=True, check=True)
    return path


def offset(program, name):
    listing = subprocess.run(["nm", program], check=True, capture_output=True, text=True).stdout
    return next(int(line.split()[0], 16) for line in listing.splitlines() if line.endswith(f" T {name}"))


class Pair:
    """The handler above, attached to functions of the program by uprobe and uretprobe."""

    def __init__(self, program, names, **options):
        made = compile_text(PAIR, "uretprobe", results=HashMap("results"), calls=Count("calls"))
        sites = tuple(Site(0, name, name, path=str(program), address=offset(program, name)) for name in names)
        several = {"site": 0} if len(sites) == 1 else {"site": None, "cookie": options.pop("cookie")}
        target = BpfTarget(Way.UPROBE, Way.URETPROBE, sites=len(sites), shards=4, **several, **options)
        lowered = lower(made, target)
        all_sites = tuple(range(len(sites)))
        plan = Plan(
            (PlannedProbe("uretprobe", "h", (Way.UPROBE, Way.URETPROBE)),),
            sites,
            (*made.maps, *lowered.maps),
            lowered.programs,
            tuple(Attachment(number, all_sites) for number in range(len(lowered.programs))),
            (),
        )
        self.program = program
        self.engine = KernelEngine()
        self.attached = self.engine.attach(plan)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.attached.close()
        self.engine.close()

    def run(self, *steps):
        subprocess.run([self.program, *steps], check=True)

    def counts(self, counter):
        """Return hits (0) or missed (1) of each site."""
        ((_, value),) = self.attached.read_map(".stats")
        words = struct.unpack(f"<{len(value) // 8}Q", value)
        sites = len(words) // 16
        return [sum(words[4 * site + counter :: 4 * sites]) for site in range(sites)]

    def results(self):
        pairs = self.attached.read_map("results")
        return {struct.unpack("<q", key)[0]: struct.unpack("<q", value)[0] for key, value in pairs}

    def calls(self):
        ((_, value),) = self.attached.read_map("calls")
        return sum(struct.unpack("<4Q", value))


@pytest.fixture(params=[True, False], ids=["table", "hash map"])
def exchange(request):
    return request.param


def test_nested_calls_each_get_their_own_entry_back(program, exchange):
    with Pair(program, ["deep"], compare_exchange=exchange) as pair:
        pair.run("d50")
        assert pair.results() == {n: n * (n + 1) // 2 for n in range(51)}
        assert (pair.counts(0), pair.counts(1), pair.calls()) == ([51], [0], 51)


def test_calls_of_eight_threads_are_told_apart(program, exchange):
    with Pair(program, ["deep"], compare_exchange=exchange) as pair:
        pair.run("t500")
        assert (pair.counts(0), pair.counts(1), pair.calls()) == ([16000], [0], 16000)


@pytest.mark.parametrize("cookie", ["site", "cookie"])
def test_several_sites_share_a_table(program, exchange, cookie):
    with Pair(program, ["deep", "work"], compare_exchange=exchange, cookie=cookie) as pair:
        pair.run("t200", "d9")
        assert (pair.counts(0), pair.counts(1), pair.calls()) == ([6410, 1600], [0, 0], 8010)


def test_a_call_that_keeps_nothing_is_a_hit(program, exchange):
    with Pair(program, ["work"], compare_exchange=exchange) as pair:
        pair.run("w150")
        assert (pair.counts(0), pair.counts(1), pair.calls()) == ([150], [0], 100)
        assert pair.results() == {n: 3 * n + 7 for n in range(100)}


def test_calls_beyond_the_room_are_missed(program, exchange):
    with Pair(program, ["deep"], compare_exchange=exchange, calls=8) as pair:
        pair.run("d50")
        hits, missed = pair.counts(0)[0], pair.counts(1)[0]
        assert hits + missed == 51
        assert 4 <= hits <= 8
        pair.run("d1")
        assert pair.counts(0)[0] + pair.counts(1)[0] == 53


def test_a_call_whose_return_is_never_seen_is_missed(program, exchange):
    with Pair(program, ["work"], compare_exchange=exchange) as pair:
        # All are made from the same frame, so each finds the record that a longjmp left behind.
        pair.run("j3", "j1", "f5", "f6")
        assert (pair.counts(0), pair.counts(1)) == ([2], [2])
        assert pair.results() == {5: 22, 6: 25}


def test_a_stale_record_is_not_taken_for_a_filtered_call(program, exchange):
    with Pair(program, ["work"], compare_exchange=exchange) as pair:
        pair.run("j3", "f100")
        assert (pair.counts(0), pair.counts(1), pair.calls()) == ([1], [1], 0)
