"""Definitions of kprobes and uprobes: real kernels have the last word on each."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from random import Random

import pytest
from definition_truth import FILES, GuestFiles, ask, ask_file, differences, parsed
from definition_writer import Writer
from filter_writer import EVENT, FilterWriter
from guest_harness import Guest, run_kprobes
from seeds import SEED

from kprobes.cli.check import world_of
from kprobes.engines.vm.kernels import KERNEL_NAMES
from kprobes.errors import DefinitionError
from kprobes.grammar.filter import FilterField, field_of, parse_filter
from kprobes.grammar.world import World
from kprobes.symbols.definitions import DefinitionSymbols, FewSymbols
from kprobes.symbols.kallsyms import Kallsyms

# Deleting takes 5.10 a third of a second an event.
COUNTS = {"5.10": 120}
COUNT = 500
FORMAT = re.compile(r"field:(.*?)(\w+)(\[[^\]]*\])?;\s*offset:\d+;\s*size:(\d+);\s*signed:(\d);")


@pytest.mark.parametrize("kind", ["kprobe", "uprobe", "dynamic"])
@pytest.mark.parametrize("kernel", KERNEL_NAMES)
def test_parser_and_kernel_agree_on_generated_definitions(
    kernel: str, kind: str, guest_of: Callable[[str], Guest]
) -> None:
    guest = guest_of(kernel)
    sequences = Writer(SEED, kind, FILES).sequences(COUNTS.get(kernel, COUNT))
    real = ask(guest.machine, guest.programs / "definitions", kind, sequences)
    ours = parsed(kernel, kind, world_of(guest.machine, GuestFiles()), sequences)
    assert list(differences(sequences, real, ours)) == []
    assert {answer.errno for answers in real for answer in answers} >= {0, 22}


def test_check_by_a_guest_knows_its_symbols_and_types(newest: Guest) -> None:
    script = "p vfs_read size=count\np vfs_raed\nr fput $retval\np:sched/sched_switch vfs_read\n"
    newest.machine.wait_ready()
    done = run_kprobes("check", f"--vm={newest.kernel}", "--json", "-", status=1, text=script)
    rows = [json.loads(line) for line in done.output.splitlines()]
    assert [row["ok"] for row in rows] == [True, False, False, False]
    assert rows[0]["canonical"] == "p:kprobes/p_vfs_read_0 vfs_read size=count"
    assert [(row["error"], row["column"], row["errno"]) for row in rows[1:]] == [
        ("Invalid probed address or symbol", 2, 22),
        ("This function returns 'void' type", 7, 2),
        ("Given group/event name is already used by another event", 0, 17),
    ]


def test_parser_and_kernel_agree_on_generated_filters(guest: Guest) -> None:
    tracefs = "/sys/kernel/tracing"
    shown = guest.shell(f"echo '{EVENT}' >> {tracefs}/kprobe_events; cat {tracefs}/events/filtered/one/format").output
    fields = [field_of(f"{kind}{array}".strip(), *rest) for kind, array, *rest in declared(shown)]
    lines = FilterWriter(SEED).lines(400)
    world = world_of(guest.machine, None)
    real = ask_file(guest.machine, guest.programs / "definitions", "events/filtered/one/filter", [lines])[0]
    guest.shell(f"echo > {tracefs}/kprobe_events")
    ours = [judged(line, fields, guest.kernel, world) for line in lines]
    wrong = [
        (line, theirs, mine)
        for line, theirs, mine in zip(lines, real, ours, strict=True)
        if (theirs.errno, theirs.message, theirs.column, theirs.command) != mine
    ]
    assert wrong == []
    taken = [line for line, theirs in zip(lines, real, strict=True) if not theirs.errno]
    knows_places = guest.kernel not in ("5.10", "6.1")
    assert any(".function" in line for line in taken) == any("CPUS{" in line for line in taken) == knows_places
    assert {answer.errno for answer in real} >= {0, 22}


def declared(text: str) -> list[tuple[str, str, str, int, bool]]:
    return [(kind, array, name, int(size), sign == "1") for kind, name, array, size, sign in FORMAT.findall(text)]


def judged(line: str, fields: list[FilterField], kernel: str, world: World) -> tuple[int, str, int | None, str]:
    try:
        parse_filter(line, fields, kernel, world)
    except DefinitionError as error:
        return error.errno, error.message, error.column, error.command
    return 0, "", None, ""


def test_symbols_that_are_looked_for_one_by_one_are_those_of_the_index(newest: Guest) -> None:
    facts = newest.machine.facts()
    table = Kallsyms.load(facts.kallsyms())
    texts = {"functions": facts.text("functions"), "blacklist": facts.text("blacklist")}
    whole, few = DefinitionSymbols(table, **texts), FewSymbols(table, **texts)
    for one in Random(SEED).sample(list(table.symbols()), 300):
        assert few.count(one.name, None) == whole.count(one.name, None), one
        assert few.address(one.name) == whole.address(one.name), one
        for address in (one.address, one.address + 5):
            assert few.offset_at(address) == whole.offset_at(address), one
            assert few.is_notrace(address) == whole.is_notrace(address), one
            assert few.refusal(address) == whole.refusal(address), one
