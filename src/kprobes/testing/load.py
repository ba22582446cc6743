"""Recorded hits as frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kprobes.compiler.front.abi import integer_indexes
from kprobes.events.recording import load_recording
from kprobes.replay import RecordedTypes
from kprobes.testing.frame import DEFAULTS, Frame

if TYPE_CHECKING:
    from kprobes.events.recording import Half, Hit
    from kprobes.model.ctype import Function, Types
    from kprobes.model.plan import Site


def load(path: str) -> list[Frame]:
    """Return the hits that `kprobes run --record` saved in the file *path*, in the order in which they began.

    Each knows its `site`, and the types of its target: parameters and fields have their C types. What was not recorded
    is a fault where the handler reads memory, and the frame's default elsewhere.

    Raises:
        SyscallError, FormatError: the file can't be read, or is no recording.
    """
    recording = load_recording(path)
    types = RecordedTypes(recording)
    return [_frame(hit, recording.plan.sites[hit.site], types) for hit in recording.hits]


def _frame(hit: Hit, site: Site, types: RecordedTypes) -> Frame:
    first, last = hit.halves[0], hit.halves[-1]
    prototype, known = types.prototype(site), types.of(site)
    memory: dict[int, bytes] = {}
    for half in hit.halves:
        memory |= half.memory
    words: dict[str, Any] = {"function": site.address}
    for name in DEFAULTS:
        values = [_word(half, name) for half in (first, last)]
        if values != [None, None]:
            words[name] = values[0] if values[0] == values[1] else tuple(values)
    return Frame(
        _arguments(first, prototype, known, types.machine),
        _signed(int(last.values.get("result", 0))) if prototype is None else int(last.values.get("result", 0)),
        registers=_registers(first),
        after=_registers(last),
        memory=memory,
        types=known,
        prototype=prototype,
        site=site.name,
        arch=types.machine,
        **words,
    )


def _word(half: Half, name: str) -> Any:
    value = half.words.get(name, half.values.get(f"w.{name}"))
    return value.split(b"\0", 1)[0].decode(errors="surrogateescape") if isinstance(value, bytes) else value


def _arguments(half: Half, prototype: Function | None, types: Types, arch: str) -> list[int]:
    raw: list[int] = []
    while f"a{len(raw)}" in half.values:
        raw.append(int(half.values[f"a{len(raw)}"]))
    if prototype is None:
        return raw
    indexes = integer_indexes(prototype, types, arch)
    return [raw[index] if index is not None and index < len(raw) else 0 for index in indexes]


def _registers(half: Half) -> dict[str, int]:
    return {name[2:]: int(value) for name, value in half.values.items() if name.startswith("r.")}


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
