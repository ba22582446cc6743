"""Plans that put generated handlers on the functions of `agree.c`, and what came of them, handler by handler."""

from __future__ import annotations

import random
import struct
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from back.machine import Outcome

from agree.engines import RefusedError, compiled, contents, on_interpreter
from agree.grammar import random_handler
from agree.universe import BASE, MEMORY, SIZE, Handler
from kprobes.compiler.back.bpf import BpfTarget, lower
from kprobes.compiler.ir.nodes import Handler as Made
from kprobes.model.layout import MapLayout
from kprobes.model.plan import Attachment, Plan, PlannedProbe, Program, Site

FUNCTIONS = 128  # of agree.c
RING_BYTES = 1 << 22


@dataclass(frozen=True)
class Planned:
    """A plan with the handlers that it puts on one function each, in order."""

    plan: Plan
    handlers: tuple[Handler, ...]
    made: tuple[Made, ...]

    def data(self) -> bytes:
        """Return the file that `agree` is to work off: the hits of all handlers by turns."""
        words = [BASE, SIZE]
        calls = []
        for turn in range(max(len(one.hits) for one in self.handlers)):
            for number, one in enumerate(self.handlers):
                if turn < len(one.hits):
                    hit = one.hits[turn]
                    calls += [number, *hit.arguments, hit.result]
        return struct.pack("<2Q", *words) + MEMORY + struct.pack(f"<{len(calls)}Q", *calls)

    def expected(self, number: int, who: tuple[dict[str, int], dict[str, bytes]]) -> Outcome:
        """Return what the interpreter makes of handler *number*."""
        return on_interpreter(self.made[number], self.handlers[number], who, number)

    def found(self, number: int, records: list[bytes], read_map: object) -> Outcome:
        """Return what came of handler *number*: of all *records*, and of the maps."""
        own = [record for record in records if int.from_bytes(record[4:8], "little") == number]
        ((_, stats),) = read_map(".stats")
        words = struct.unpack(f"<{len(stats) // 8}Q", stats)
        each = 4 * len(self.plan.sites)
        return Outcome(
            tuple(sum(words[4 * number + kind :: each]) for kind in range(4)),
            own,
            contents(self.made[number], read_map),
        )


def places(program: Path) -> list[int]:
    """Return the file offsets of f0, f1, ... in *program*, which has its code where its ELF header says."""
    listed = subprocess.run(["nm", program], capture_output=True, text=True, check=True).stdout
    addresses = {fields[2]: int(fields[0], 16) for fields in map(str.split, listed.splitlines()) if len(fields) == 3}
    segments = subprocess.run(["readelf", "-lW", program], capture_output=True, text=True, check=True).stdout
    code = next(words for words in map(str.split, segments.splitlines()) if words[:1] == ["LOAD"] and "E" in words[6:8])
    shift = int(code[2], 16) - int(code[1], 16)
    return [addresses[f"f{number // 8 // 8 or ''}{number // 8 % 8}{number % 8}"] - shift for number in range(FUNCTIONS)]


def generated(seed: int, count: int, hits: int, shards: int) -> list[tuple[Handler, Made]]:
    """Return *count* handlers that the language takes, with their IR; their maps and events have names of their own."""
    source = random.Random(seed)
    found: list[tuple[Handler, Made]] = []
    events = 0
    while len(found) < count:
        handler = random_handler(source, hits)
        try:
            made = compiled(handler, shards, events, f"_{len(found)}")
        except RefusedError:
            continue
        found.append((handler, replace(made, name=f"h{len(found)}")))
        events += len(made.events)
    return found


def plan_in_file(program: str, offsets: list[int], chosen: list[tuple[Handler, Made]], **target: object) -> Planned:
    """Return the plan for the handlers *chosen*, one at each of the *offsets* of *program*, by uprobes."""
    sites, programs, attachments, probes = [], [], [], []
    maps: dict[str, MapLayout] = {}
    for number, (handler, made) in enumerate(chosen):
        ways = {"entry_way": "uprobe" if made.entry else "", "exit_way": "uretprobe" if made.exit else ""}
        given = BpfTarget(**ways, sites=len(chosen), site=number, calls=64, ring_bytes=RING_BYTES, **target)
        lowered = lower(made, given)
        sites.append(Site(number, f"f{number}", f"f{number}", address=offsets[number], path=program))
        probes.append(PlannedProbe(handler.kind, f"f{number}", tuple(way for way in ways.values() if way)))
        for one in lowered.programs:
            attachments.append(Attachment(len(programs), (number,)))
            programs.append(one)
        maps.update({layout.name: layout for layout in (*made.maps, *lowered.maps)})
    return _planned(chosen, probes, sites, maps, programs, attachments)


def _planned(
    chosen: list[tuple[Handler, Made]],
    probes: list[PlannedProbe],
    sites: list[Site],
    maps: dict[str, MapLayout],
    programs: list[Program],
    attachments: list[Attachment],
) -> Planned:
    made = tuple(one for _, one in chosen)
    events = tuple(event for one in made for event in one.events)
    plan = Plan(tuple(probes), tuple(sites), tuple(maps.values()), tuple(programs), tuple(attachments), events)
    return Planned(plan, tuple(handler for handler, _ in chosen), made)
