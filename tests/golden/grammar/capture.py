"""Writes the golden files beside it: generated definitions, and what four real kernels say of them.

    PYTHONPATH=src python tests/golden/grammar/capture.py

definitions.json   {kind: [[line, ...], ...]}: sequences, each for an events file without events
VERSION.json       {kind: [[answer, ...], ...], "world": ...}; an answer is what is listed (addresses masked) where the
                   line was taken, [errno, message, column] where it was not; `world` is what the verdicts depend on
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
TESTS = HERE.parents[1]
sys.path[:0] = [str(TESTS / "live/vm"), str(TESTS / "unit/grammar")]

from definition_truth import FILES, Answer, GuestFiles, ask, differences, masked, parsed  # noqa: E402
from definition_writer import Writer  # noqa: E402
from recorded_world import recording  # noqa: E402

from kprobes.cli.check import world_of  # noqa: E402
from kprobes.engines.vm.kernels import KERNEL_NAMES  # noqa: E402
from kprobes.engines.vm.machine import Machine  # noqa: E402

COUNTS = {"kprobe": 800, "uprobe": 400, "dynamic": 120}
SEED = 6


def main() -> None:
    written = {kind: Writer(SEED, kind, FILES).sequences(count) for kind, count in COUNTS.items()}
    write(HERE / "definitions.json", written)
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory, "definitions")
        source = TESTS / "live/programs/definitions.c"
        subprocess.run(["gcc", "-O2", "-static", "-o", program, source], check=True)
        for kernel in sys.argv[1:] or KERNEL_NAMES:
            with Machine(kernel) as machine:
                machine.wait_ready()
                write(HERE / f"{kernel}.json", capture(machine, kernel, program, written))


def capture(machine: Machine, kernel: str, program: Path, written: dict[str, list[list[str]]]) -> dict[str, object]:
    known: dict[str, object] = {}
    world = recording(world_of(machine, GuestFiles()), known)
    found: dict[str, object] = {}
    for kind, sequences in written.items():
        real = ask(machine, program, kind, sequences)
        for one in differences(sequences, real, parsed(kernel, kind, world, sequences)):
            print(kernel, *one, sep="\n    ")
        found[kind] = [[compact(answer) for answer in answers] for answers in real]
    return {**found, "world": known}


def compact(answer: Answer) -> object:
    if answer.errno:
        return [answer.errno, answer.message, answer.column]
    return "\n".join(masked(answer.listed))


def write(path: Path, content: dict[str, object]) -> None:
    lines = (f"{json.dumps(name)}: {lines_of(value)}" for name, value in content.items())
    path.write_text("{" + ",\n".join(lines) + "}\n")


def lines_of(value: object) -> str:
    """Return *value* as JSON, a line for each of a list's elements."""
    if not isinstance(value, list):
        return json.dumps(value)
    return "[\n" + ",\n".join(json.dumps(one) for one in value) + "\n]"


if __name__ == "__main__":
    main()
