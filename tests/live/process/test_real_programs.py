"""Real programs: probed on every function of their main object they do what they do unprobed, and counts are true.

Each program works through its standard input, chunk by chunk, so that the tests decide how much it does, and while
what. The reference for counts is another implementation altogether: the kernel's uprobes, in a run of their own.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import mmap
import os
import struct
import subprocess
import sys
import sysconfig
import termios
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from process_harness import attached

from kprobes.engines.process.target import Process
from kprobes.model.plan import Plan
from kprobes.model.probe import Probe
from kprobes.model.within import Within
from kprobes.planner.process import plan_process

pytestmark = pytest.mark.process

ENVIRONMENT = os.environ | {"PYTHONHASHSEED": "0", "PERL_HASH_SEED": "0", "PERL_PERTURB_KEYS": "0", "LC_ALL": "C"}
# Where CPython's functions are: in a library of its own, or in the program.
PYTHON_CODE = Path(sys.executable).resolve()
if sysconfig.get_config_var("Py_ENABLE_SHARED"):
    PYTHON_CODE = Path(sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME"))
KPROBES = [sys.executable, "-m", "kprobes.cli.main"]
FIXED_CHUNKS = 40
ROUNDS = 2
LINE = 2000
SAMPLE = 40
MOST_HITS = 4000  # of one function of the sample: a kernel uprobe takes microseconds


@dataclass(frozen=True)
class Real:
    """A program: its command line, what is probed, at least how many places that are, and what it is fed."""

    argv: tuple[str, ...]
    places: str
    least: int
    chunk: Callable[[int], str]
    prologue: str = ""
    deterministic: bool = True  # without forks and threads: every run makes the same calls
    jitter: int = 0  # but for so many, where a run looks at the clock or at its files' times


def sql(number: int) -> str:
    return f"""
    insert into t select {number} * 100 + i, printf('%x-%d', i * {number + 7}, i) from n;
    select count(*), sum(length(b)), max(b), group_concat(distinct a % 7) from t where b like '%{number % 10}%';
    update t set b = upper(b) || 'x' where a % 5 = {number % 5};
    select a % 3, count(distinct b) from t join n on a % 100 = i group by 1 order by 2 desc;
    delete from t where a < {number} * 100 - 300;
    """


SQL_PROLOGUE = """
create table n(i integer primary key); create table t(a integer primary key, b text); create index tb on t(b);
with recursive c(i) as (select 1 union all select i + 1 from c where i < 100) insert into n select i from c;
"""


def text(number: int) -> str:
    words = [hashlib.md5(b"%d" % (number * 40 + one % 29)).hexdigest() for one in range(400)]
    return " ".join(words) + "\n"


def shell(number: int) -> str:
    return f"""
    f() {{ local a=("$@"); a+=(${{#a[@]}}); r=${{a[*]//1/z}}; }}
    for ((i = 0; i < 60; i++)); do f $i "{number}$i" $((i * {number} % 97)); done
    case $r in *{number % 10}*) echo "yes $r";; *) printf '%s:%05d\\n' "${{r^^}}" {number};; esac
    """


def forking_shell(number: int) -> str:
    return f'{shell(number)}\nx=$(echo {number} | {{ read y; echo $((y + 1)); }}); (echo "$x"); true & wait\n'


def line(number: int) -> str:
    return f"{number}".ljust(LINE) + "\n"  # long, so that few of them fit into a pipe


PERL = """
while (<STDIN>) {
    my %h; chomp; $h{$_ % 77} .= "x$_" for 1 .. 100 + $_ % 50;
    my @k = sort { $a <=> $b } grep { $h{$_} =~ /(\\d)\\1/ } keys %h;
    my $r = eval { die { n => scalar @k } if @k % 2; "even" } // "odd $@->{n}";
    print join(",", map { sprintf "%s%d", $r, length $h{$_} } @k), "\\n";
}
"""

PYTHON = """
import sys, json, re, itertools
class A:
    def __init__(self, n): self.n = n
    def __repr__(self): return f"A({self.n!r})"
def work(n):
    rows = [{"k": i, "v": [str(i * n), i / 7, None, A(i)]} for i in range(60)]
    text = json.dumps(rows, default=repr, sort_keys=True)
    found = re.findall(r'"(\\d+)", (\\d+\\.\\d+)', text)
    try:
        raise KeyError(len(text))
    except KeyError as error:
        return sum(itertools.accumulate(int(a) for a, _ in found)), str(error), len(json.loads(text))
"""
PYTHON_ALONE = PYTHON + "for line in sys.stdin: print(*work(int(line)), flush=True)"
PYTHON_THREADS = (
    PYTHON
    + """
from concurrent.futures import ThreadPoolExecutor
for line in sys.stdin:
    with ThreadPoolExecutor(4) as pool: print(*pool.map(work, range(int(line), int(line) + 4)), flush=True)
"""
)

PROGRAMS = {
    "sqlite3": Real(("sqlite3", "-batch", ":memory:"), "libsqlite3:*", 1300, sql, SQL_PROLOGUE),
    "xz": Real(("xz", "-1", "-c"), "liblzma:*", 90, text),
    "xz-threads": Real(("xz", "-T3", "-1", "--block-size=4000", "-c"), "liblzma:*", 90, text, deterministic=False),
    "openssl": Real(
        ("openssl", "enc", "-aes-256-cbc", "-a", "-pbkdf2", "-iter", "5000", "-nosalt", "-k", "x"),
        "libcrypto:*",
        5300,
        text,
    ),
    "bash": Real(("bash",), "bash:*", 1600, shell),
    "bash-forks": Real(("bash",), "bash:*", 1600, forking_shell, deterministic=False),
    "perl": Real(("perl", "-e", PERL), "perl:*", 1700, line),
    "python": Real((sys.executable, "-S", "-c", PYTHON_ALONE), f"{PYTHON_CODE}:*", 1500, line, jitter=3),
    "python-threads": Real(
        (sys.executable, "-S", "-c", PYTHON_THREADS), f"{PYTHON_CODE}:*", 1500, line, deterministic=False
    ),
}


def input_of(real: Real, chunks: int) -> bytes:
    return (real.prologue + "".join(map(real.chunk, range(chunks)))).encode()


def run_plain(real: Real, given: bytes) -> tuple[int, bytes, bytes]:
    done = subprocess.run(real.argv, input=given, capture_output=True, timeout=120, env=ENVIRONMENT)
    return done.returncode, done.stdout, done.stderr


def count(real: Real, directory: Path, *words: str) -> tuple[tuple[int, bytes, bytes], list[tuple[str, int]]]:
    """Run the program under `kprobes count`; return what it did, and (function, hits) of each place."""
    given, report = directory / "given", directory / "report"
    given.write_bytes(input_of(real, FIXED_CHUNKS))
    with given.open("rb") as file:
        done = subprocess.run(
            [*KPROBES, "count", "--strict", "--format", "json", "-o", report, *words, "--", *real.argv],
            stdin=file,
            capture_output=True,
            timeout=120,
            env=ENVIRONMENT,
        )
    assert report.exists(), done.stderr
    rows = [json.loads(line) for line in report.read_text().splitlines()]
    assert not any(row["missed"] for row in rows)
    found = [(row["probe"].partition(":")[2] or row["probe"], row["hits"]) for row in rows]
    return (done.returncode, done.stdout, b"" if done.stderr.endswith(b"missed\n") else done.stderr), found


def sample_of(counted: list[tuple[str, int]]) -> dict[str, int]:
    """Return functions from all over the range of hits, some without any; only such as have a name of their own."""
    named = Counter(name for name, _ in counted)
    plain = sorted((hits, name) for name, hits in counted if named[name] == 1 and "." not in name)
    hit = [one for one in plain if 0 < one[0] <= MOST_HITS]
    chosen = hit[:: max(1, len(hit) // SAMPLE)] + plain[:5]
    return {name: hits for hits, name in chosen}


@pytest.mark.parametrize("name", PROGRAMS)
def test_started_with_probes_on_all_functions_it_does_the_same_and_counts_are_the_kernels(
    tmp_path: Path, name: str
) -> None:
    real = PROGRAMS[name]
    expected = run_plain(real, input_of(real, FIXED_CHUNKS))
    assert expected[1]
    did, counted = count(real, tmp_path, real.places)
    assert did == expected
    assert len(counted) >= real.least
    if not real.deterministic:
        return
    sample = sample_of(counted)
    assert sum(sample.values()) > 100
    file = real.places.partition(":")[0]
    did, reference = count(real, tmp_path, "--engine", "uprobe", *(f"{file}:{one}" for one in sample))
    assert did == expected
    differences = {
        name: (hits, dict(reference)[name]) for name, hits in sample.items() if hits != dict(reference)[name]
    }
    assert len(differences) <= real.jitter, differences
    assert all(abs(one - other) <= real.jitter for one, other in differences.values()), differences


class Feeder:
    """Feeds a program: one chunk, which it has taken when this is made; from `go` to `finish` as many as it takes."""

    def __init__(self, real: Real, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        self._real = real
        self._pipe = process.stdin
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._feed)
        self.chunks = 0
        fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, mmap.PAGESIZE)  # little is under way when it ends
        self._pipe.write(real.prologue.encode())
        self.feed()
        while self.unread:
            assert process.poll() is None
            time.sleep(0.001)

    @property
    def unread(self) -> int:
        return int(struct.unpack("i", fcntl.ioctl(self._pipe, termios.FIONREAD, bytes(4)))[0])

    def go(self) -> None:
        self._thread.start()

    def _feed(self) -> None:
        while not self._end.is_set():
            self.feed()

    def feed(self) -> None:
        self._pipe.write(self._real.chunk(self.chunks).encode())
        self._pipe.flush()
        self.chunks += 1

    def finish(self) -> None:
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(60)
        self._pipe.close()


@pytest.mark.parametrize("name", PROGRAMS)
def test_all_its_functions_are_probed_and_released_while_it_works_and_it_does_the_same(
    tmp_path: Path, name: str
) -> None:
    real = PROGRAMS[name]
    out, err = tmp_path / "out", tmp_path / "err"
    with (
        out.open("wb") as output,
        err.open("wb") as errors,
        subprocess.Popen(real.argv, stdin=subprocess.PIPE, stdout=output, stderr=errors, env=ENVIRONMENT) as process,
    ):
        feeder = Feeder(real, process)
        plan = plan_process([Probe("uprobe", (real.places,))], Within(process.pid, native=True))
        assert len(plan.sites) >= real.least
        feeder.go()
        try:
            hits = [hits_while_attached(process.pid, plan, feeder) for _ in range(ROUNDS)]
        finally:
            feeder.finish()
        process.wait(120)
    expected = run_plain(real, input_of(real, feeder.chunks))
    assert (process.returncode, out.read_bytes(), err.read_bytes()) == expected
    assert all(hits)


def hits_while_attached(pid: int, plan: Plan, feeder: Feeder) -> int:
    end = time.monotonic() + 60
    with attached(Process(pid), plan) as (engine, found):
        before = feeder.chunks
        while feeder.chunks < before + 5:
            assert engine.is_alive
            assert time.monotonic() < end
            time.sleep(0.001)
        return sum(hits for hits, *_ in found.counters())
