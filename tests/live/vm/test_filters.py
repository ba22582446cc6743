"""Event filters: records of a real event pass as `matches` says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import pytest
from filter_writer import FilterWriter
from guest_harness import Guest
from seeds import SEED
from test_definitions import declared

from kprobes.cli.check import world_of
from kprobes.engines.vm.tracefs import GuestTracefs
from kprobes.errors import DefinitionError
from kprobes.grammar.filter import Expression, field_of, matches, parse_filter
from kprobes.grammar.world import World

PLACE = "do_sys_openat2 a=%di b=%di:s32 c=+0(%si):ustring d=%si:u8 e=$comm"
COUNT = {"5.10": 16}  # where an event takes a third of a second to be deleted
TRACING = "/sys/kernel/tracing"
OFF = f"cd {TRACING}; echo 0 > events/judged/enable"
LONG = "fifteen_ends_at"  # as many characters as a task's name can have
RENAMED = f"(echo {LONG} > /proc/self/comm; read -r line < /proc/version)"
WORKLOAD = f"cat /proc/version nosuch; ls /; {RENAMED}; for i in 1 2 3; do cat /etc/passwd; done; true"
TASKS = ("cat", "ls", LONG)
# What 5.10 leaves behind the NUL of a name: the ends of the longer ones that the task had before, the shell's and that
# of who started it.
LEFT_BEHIND = {"cat": "cat\0bes-agent\0\0\0", "ls": "ls\0obes-agent\0\0\0"}
LINE = re.compile(
    r"^ *(?P<comm>.+)-(?P<pid>\d+) +\[(?P<cpu>\d+)\] .*? (?P<event>\w+): \(do_sys_openat2\+\S+\) "
    r"a=0x(?P<a>[0-9a-f]+) b=(?P<b>-?\d+) c=(?P<c>\"[^\n]*\"|\(fault\)) d=(?P<d>\d+) e=\"(?P<e>[^\n]*)\"$",
    re.MULTILINE,
)
# Of whatever the dice write, all may pass or none.
TELLING = (
    'e == "cat"',
    'c ~ "/etc/*" || e == "ls"',
    'comm ~ "*at"',
    'COMM ~ "!*ends_at"',
    'comm ~ "*a*"',
    'comm ~ "*agent*"',
    'e ~ "*at"',
    'comm ~ "?at"',
    f'comm == "{LONG}" || comm ~ "l*"',
)
# These compare with what is another for each event, or isn't in the line.
LEFT_OUT = ("common_type", "__probe_ip")


@pytest.fixture
def tracefs(guest: Guest) -> Iterator[GuestTracefs]:
    files = guest.machine.tracefs()
    yield files
    guest.shell(f"{OFF}; echo > kprobe_events; echo > trace")


def filters(kernel: str, shape: str, world: World) -> dict[str, tuple[str, Expression]]:
    """Return filters that the kernel takes, by the names of their events."""
    fields = [field_of(f"{kind}{array}".strip(), *rest) for kind, array, *rest in declared(shape)]
    found: dict[str, tuple[str, Expression]] = {}
    for line in (*TELLING, *FilterWriter(SEED).lines(2000)):
        if any(name in line for name in LEFT_OUT) and ".function" not in line:
            continue
        try:
            condition = parse_filter(line, fields, kernel, world)
        except DefinitionError:
            continue
        if condition is not None and len(found) < COUNT.get(kernel, 25):
            found[f"e{len(found)}"] = (line, condition)
    return found


def test_records_pass_as_judged(guest: Guest, tracefs: GuestTracefs) -> None:
    world = world_of(guest.machine, None)
    assert world.symbols is not None
    address = world.symbols.address("do_sys_openat2")
    assert tracefs.write("kprobe_events", f"p:judged/all {PLACE}\n".encode()) == 0
    wanted = filters(guest.kernel, (tracefs.read("events/judged/all/format") or b"").decode(), world)
    for name, (line, _) in wanted.items():
        assert tracefs.write("kprobe_events", f"p:judged/{name} {PLACE}\n".encode()) == 0
        assert tracefs.write(f"events/judged/{name}/filter", line.encode("utf-8", "surrogateescape")) == 0
    guest.shell(f"echo 1 > {TRACING}/events/judged/enable; {WORKLOAD}; {OFF}")
    records: dict[str, list[dict[str, int | str]]] = {name: [] for name in ("all", *wanted)}
    for match in LINE.finditer((tracefs.read("trace") or b"").decode()):
        if match["c"] != "(fault)":
            records[match["event"]].append(record_of(match, address, guest.kernel))
    every = [record for record in records["all"] if record["e"] in TASKS]
    assert {record["e"] for record in every} == {*TASKS}
    assert len({record["c"] for record in every}) >= 3
    passed = 0
    for name, (line, condition) in wanted.items():
        theirs = Counter(key(record) for record in records[name] if record["e"] in TASKS)
        ours = Counter(key(record) for record in every if matches(condition, record))
        assert theirs == ours, line
        passed += 0 < ours.total() < len(every)
    assert passed


def record_of(match: re.Match[str], address: int, kernel: str) -> dict[str, int | str]:
    """Return the record of a line. The name in front of it is what the task was called last, not at the hit."""
    numbers = {"a": int(match["a"], 16), "b": int(match["b"]), "d": int(match["d"]), "__probe_ip": address}
    texts = {"c": match["c"][1:-1], "e": match["e"]}
    comm = LEFT_BEHIND.get(match["e"], match["e"]) if kernel == "5.10" else match["e"]
    task = {"comm": comm, "COMM": comm, "common_pid": int(match["pid"])}
    return {**numbers, **texts, **task, "cpu": int(match["cpu"]), "CPU": int(match["cpu"])}


def key(record: dict[str, int | str]) -> tuple[tuple[str, int | str], ...]:
    return tuple(sorted(record.items()))
