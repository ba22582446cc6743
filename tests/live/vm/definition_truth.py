"""What a real kernel says of definitions, beside what the parser says of them."""

from __future__ import annotations

import posixpath
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kprobes.engines.vm.machine import Machine
from kprobes.grammar.events import Events
from kprobes.grammar.world import World

TIMEOUT_S = 280.0
COMMAND = "  Command: "
CUT = 243  # bytes of a command in the log of 5.10
STAMP = re.compile(r"\[ *\d+\.\d+\] [a-z_ ]+: error: ")
# Addresses are listed hashed; the digits of a uprobe's offset stand behind a colon.
HASHED = re.compile("(?<!:)0x[0-9a-f]{16}")
FILES = (
    "/root/definitions",
    "/bin/busybox",
    "/bin/sh",
    "/proc",
    "/dev/null",
    "/no/such",
    "/root/definitions/x",
    "nopath",
)


DIRECTORIES = frozenset({"/", "/bin", "/proc", "/dev", "/root"})
REGULAR = {"/bin/busybox": "busybox", "/bin/sh": "busybox", "/root/definitions": "definitions"}


class GuestFiles:
    """The files of a guest that generated definitions name, as far as they lead anywhere."""

    def look(self, path: str) -> tuple[int, bool, str]:
        current = "/" if path.startswith("/") else "/root"
        for part in path.split("/"):
            if current not in DIRECTORIES:
                return 20, False, ""
            if part in {"", "."}:
                continue
            if part == "..":
                current = posixpath.dirname(current)
                continue
            if len(part) > 255:
                return 36, False, ""
            current = posixpath.join(current, part)
            if current not in DIRECTORIES | REGULAR.keys() | {"/dev/null"}:
                return 2, False, ""
        return 0, current in REGULAR, REGULAR.get(current, "")


@dataclass(frozen=True)
class Answer:
    """What became of one line: errno; the events listed where it was taken; the last message of the log where not."""

    errno: int
    listed: tuple[str, ...] = ()
    message: str = ""
    column: int | None = None
    command: str = ""


def ask(machine: Machine, program: Path, kind: str, sequences: list[list[str]]) -> list[list[Answer]]:
    """Write *sequences* to the events file of *kind* in a guest, each to one without events; return its answers."""
    return ask_file(machine, program, f"{kind}_events", sequences)


def ask_file(machine: Machine, program: Path, name: str, sequences: list[list[str]]) -> list[list[Answer]]:
    """Write *sequences* to the file *name* of tracefs."""
    text = "\n\n".join("\n".join(lines) for lines in sequences) + "\n"
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "definitions.txt")
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        copy = [f"{program}:/root/definitions", str(path)]
        running = machine.run(["/root/definitions", name, "/root/definitions.txt"], copy=copy)
        assert running.wait(TIMEOUT_S) == 0, running.error_output
    found = iter(_answers(running.output.decode("utf-8", "surrogateescape")))
    return [[next(found) for _ in lines] for lines in sequences]


def _answers(text: str) -> Iterator[Answer]:
    for block in text.split("\n.\n"):
        lines = block.split("\n")
        if not lines[0]:
            continue
        number = int(lines[0].removeprefix("= "))
        listed = tuple(line[2:] for line in lines if line.startswith("L "))
        message, column, command = _logged([line[2:] for line in lines if line.startswith("E ")])
        yield Answer(number, listed, message, column, command)


def _logged(lines: list[str]) -> tuple[str, int | None, str]:
    """Return the last message of an error log, its column and the command."""
    starts = [at for at, line in enumerate(lines) if STAMP.match(line)]
    if not starts:
        return "", None, ""
    head, *rest = lines[starts[-1] :]
    message = STAMP.sub("", head)
    if len(rest) == 1:  # the command is cut, and its line break with it
        raw = rest[0].encode("utf-8", "surrogateescape")[len(COMMAND) :]
        command, caret = raw[:CUT].decode("utf-8", "surrogateescape"), raw[CUT:].decode()
    else:
        command, caret = "\n".join(rest[:-1])[len(COMMAND) :], rest[-1]
    return message, len(caret) - 1 - len(COMMAND), command


def parsed(kernel: str, kind: str, world: World, sequences: list[list[str]]) -> list[list[Answer]]:
    """Return what the parser answers to *sequences*."""
    return [_parsed(Events(kernel, kind, world), lines) for lines in sequences]


def _parsed(events: Events, lines: list[str]) -> list[Answer]:
    found = []
    for line in lines:
        error = events.check(line).error
        if error is None:
            found.append(Answer(0, tuple(events.listing())))
        else:
            found.append(Answer(error.errno, (), error.message, error.column, error.command))
    return found


def differences(
    sequences: list[list[str]], real: list[list[Answer]], ours: list[list[Answer]]
) -> Iterator[tuple[list[str], Answer, Answer]]:
    """Yield (the lines of a sequence up to where it differs, the kernel's answer, ours)."""
    for lines, theirs, mine in zip(sequences, real, ours, strict=True):
        for at, (one, other) in enumerate(zip(theirs, mine, strict=True)):
            if not agree(one, other):
                yield lines[: at + 1], one, other
                break


def agree(real: Answer, ours: Answer) -> bool:
    """Return whether two answers are the same; a column that nobody can tell is anybody's."""
    if (real.errno, real.message) != (ours.errno, ours.message) or masked(real.listed) != masked(ours.listed):
        return False
    if ours.column is None and ours.message:
        return True
    return (real.column, real.command) == (ours.column, ours.command)


def masked(listed: tuple[str, ...]) -> list[str]:
    """Return *listed* in an order of its own, without the addresses that the kernel hides."""
    return sorted(HASHED.sub("0xADDRESS", line) for line in listed)
