"""The lines of a list of probes, and the lists that the kernel itself keeps: what is armed, what is blacklisted."""

from __future__ import annotations

import json
import sys
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from kprobes.errors import UnsupportedError

if TYPE_CHECKING:
    from kprobes.model.facts import Facts
    from kprobes.model.listed import Listed

FIELDS = ("address", "kind", "name", "object", "way", "why", "state")


def is_meant(row: Listed, glob: str) -> bool:
    """Return whether *glob* means a row: `name`, `name+0x10` or `object:name`."""
    name = row.name.removesuffix("+0x0")
    return any(fnmatchcase(text, glob) for text in (name, row.name, f"{row.object}:{name}"))


def as_fields(row: Listed) -> dict[str, object]:
    """Return a row for JSON."""
    return {**{name: getattr(row, name) for name in FIELDS}, "flags": list(row.flags)}


def format_listed(row: Listed) -> str:
    """Return one line as the kernel's kprobes/list has it, with the way and the reason behind."""
    from kprobes.render.escape import escape

    flags = "".join(f" [{flag}]" for flag in row.flags)
    where = f" [{row.object}]" if row.object else ""
    how = ": ".join(text for text in (row.way, row.why) if text)
    return escape(f"{row.address:016x}  {row.kind}  {row.name}{where}{flags}  {how}")


def write_armed(facts: Facts, glob: str, form: str, *, must: bool) -> None:
    """Write the kprobes that are registered in a kernel; *must*: it is an error that it doesn't tell.

    Raises:
        UnsupportedError: the kernel's list can't be read.
    """
    from kprobes.symbols.kprobes_list import parse_list

    text = facts.text("kprobes")
    if text is None:
        if must:
            raise _untold("kprobes")
        return
    for row in parse_list(text):
        if is_meant(row, glob):
            sys.stdout.write(f"{json.dumps(as_fields(row)) if form == 'json' else format_listed(row)}\n")
    sys.stdout.flush()
    if (facts.text("kprobes_enabled") or "1").strip() == "0":
        sys.stderr.write("all kprobes are disarmed: debugfs has 0 in kprobes/enabled\n")


def write_blacklist(facts: Facts, glob: str, form: str) -> None:
    """Write the code that a kernel lets no kprobe go to.

    Raises:
        UnsupportedError: the kernel's list can't be read.
    """
    from kprobes.symbols.kprobes_list import parse_blacklist

    text = facts.text("blacklist")
    if text is None:
        raise _untold("blacklist")
    for one in parse_blacklist(text):
        if fnmatchcase(one.name, glob):
            row = {"name": one.name, "begin": one.begin, "end": one.end}
            line = json.dumps(row) if form == "json" else f"{one.begin:016x}-{one.end:016x}  {one.name}"
            sys.stdout.write(f"{line}\n")


def _untold(what: str) -> UnsupportedError:
    return UnsupportedError(
        f"this kernel doesn't tell its {what}",
        hint="run as root with debugfs mounted, on a kernel with CONFIG_KPROBES, or add --vm",
    )
