"""What `kprobes explain` says of a kernel is what that kernel does."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kprobes.arch.x86_64.decode import decode
from kprobes.planner.explaining import KernelText
from kprobes.symbols.kernel import KernelSymbols

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guest_harness import Guest

    from kprobes.model.facts import Facts

PLACES = 60
PATIENCE_S = 120
LISTED = re.compile(r"(?P<address>[0-9a-f]{16})  k  \S+ *(?P<flags>.*)")
ERRORS = {
    "EILSEQ": "Invalid or incomplete multibyte or wide character",
    "EINVAL": "Invalid argument",
    "EOPNOTSUPP": "Operation not supported",
}
FLAGS = {"ftrace": "[FTRACE]", "jump": "[OPTIMIZED]"}


def some_places(facts: Facts, source: random.Random) -> Iterator[str]:
    """Yield one place in each of many functions; one in eight is not where an instruction begins."""
    symbols = KernelSymbols(facts)
    lines = Path(facts.kallsyms()).read_text().splitlines()
    names = [line.split()[2] for line in lines if "[" not in line]
    source.shuffle(names)
    for name in names:
        found = symbols.table.lookup(name, "")
        if len(found) != 1 or not symbols.table.is_code(found[0]) or symbols.refusal(found[0]):
            continue
        size = symbols.table.size_of(found[0])
        # kprobe_events refuses what ftrace can't reach, which is no rule of kprobes themselves
        if not 8 < size < 2000 or not symbols.is_traceable(found[0]):
            continue
        code = facts.memory(found[0].address, size)
        assert code is not None
        offset = source.choice(decode(code, 0)).address + (source.random() < 1 / 8)
        if offset < size:
            yield f"{name}+{offset:#x}"


def armed(guest: Guest, places: list[str], jumps: int) -> tuple[dict[int, str], dict[str, str]]:
    """Arm *places* in the kernel; return the flags of each address in its list, and the errors of those refused.

    *jumps* are expected to be optimized, sooner or later.
    """
    lines = ["mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null; cd /sys/kernel/tracing || exit 1"]
    for number, place in enumerate(places):
        define = f"echo 'p:explained/e{number} {place}' >>kprobe_events"
        enable = f"echo 1 >events/explained/e{number}/enable"
        lines.append(f"{{ {define} && {enable}; }} 2>/tmp/why || echo refused {number} $(tail -n1 /tmp/why)")
    # the kernel optimises later: when every task has come by, and it is done with what others left to be undone
    list_them = "cat /sys/kernel/debug/kprobes/list"
    missing = f"[ $({list_them} | grep -c OPTIMIZED) -lt {jumps} ]"
    lines.append(f"n=0; while {missing} && [ $n -lt {PATIENCE_S} ]; do sleep 1; n=$((n + 1)); done")
    lines += [f"sleep 1; {list_them}", "echo 0 >events/explained/enable", "echo >kprobe_events"]
    done = guest.shell("\n".join(lines))
    flags, refused = {}, {}
    for line in done.output.splitlines():
        listed = LISTED.match(line)
        if listed:
            flags[int(listed["address"], 16)] = listed["flags"]
        elif line.startswith("refused"):
            _, number, why = line.split(" ", 2)
            refused[places[int(number)]] = why
    return flags, refused


def test_what_is_explained_is_what_the_kernel_does(guest: Guest) -> None:
    facts = guest.machine.facts()
    text = KernelText(facts)
    places = list(islice(some_places(facts, random.Random(guest.kernel)), PLACES))
    explained = {place: text.explain(place) for place in places}
    jumps = {said.address for said in explained.values() if said.way == "jump" and not said.error}
    flags, refused = armed(guest, places, len(jumps))
    seen: Counter[str] = Counter()
    for place, said in explained.items():
        seen[said.way or said.error] += 1
        if said.error:
            assert ERRORS[said.error] in refused.get(place, "armed"), (place, said)
        else:
            behind_endbr = next((at for at in (said.address, said.address + 4) if at in flags), 0)
            assert flags.get(behind_endbr, refused.get(place)) == FLAGS.get(said.way, ""), (place, said)
    assert seen["EILSEQ"] >= 3, seen
    assert seen["jump"] >= 8, seen
    assert seen["boosted"] + seen["emulated"] + seen["step"] >= 8, seen


def test_the_command_shows_bytes_rules_and_detour(newest: Guest) -> None:
    page = newest.command("explain", "vfs_read").output
    assert "armed: ftrace" in page
    rows = [
        json.loads(newest.command("explain", place, "--format=json").output) for place in ("vfs_read", "vfs_read+9")
    ]
    assert [row["steps"][-1]["title"] for row in rows] == ["ftrace", "detour"]
    detour = rows[1]["steps"][-1]["lines"]
    assert any("optimized_callback" in line for line in detour)
    assert detour[-1].split()[-2] == "jmp"


@pytest.mark.parametrize(
    ("place", "part"),
    [("vfs_read+0xfffff", "has only"), ("vfs_raed", "did you mean vfs_read"), ("jiffies", "it is data")],
)
def test_no_place_at_all_is_refused(newest: Guest, place: str, part: str) -> None:
    assert part in newest.command("explain", place, status=1).errors
