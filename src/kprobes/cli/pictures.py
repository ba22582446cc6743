"""What maps hold, as text or JSON rows: sums and distributions, with or without keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO, cast

from kprobes.events.average import Average
from kprobes.events.distribution import Distribution
from kprobes.events.stacks import Frames
from kprobes.events.value import KnownAddress, KnownCgroup

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kprobes.render.histogram import Picture
    from kprobes.render.terminal import Terminal

MOST_PICTURES = 5
FEW_VALUES = 16


def write_value(
    name: str, value: object, stream: TextIO, *, as_json: bool, unit: str = "", adds_up: bool = True
) -> None:
    """Write what the map *name* holds: a dict by key, a list, a Distribution, or a number.

    *adds_up*: integers by key have a total worth telling.
    """
    if as_json:
        from kprobes.render.json_lines import JsonLines

        JsonLines(stream).write(json_rows(name, value))
        return
    from kprobes.render.terminal import Terminal

    stream.write(picture_of(name, value, Terminal.of(stream), unit=unit, adds_up=adds_up))


def picture_of(
    name: str, value: object, terminal: Terminal, *, unit: str = "", most: int = MOST_PICTURES, adds_up: bool = True
) -> str:
    """Return *value* as text for people; of histograms by key the *most* frequented are shown."""
    from kprobes.render.histogram import histogram, histograms

    if isinstance(value, Distribution):
        return histogram(_picture(name, value, unit), terminal)
    if isinstance(value, list):
        return _values(name, value)
    if not isinstance(value, dict):
        return f"{name}: {'nothing' if value is None else value}\n"
    if value and isinstance(next(iter(value.values())), Distribution):
        ranked = sorted(value.items(), key=lambda item: -item[1].total)
        return histograms(
            [_picture(f"{name} [{key_text(key)}]", one, unit) for key, one in ranked], terminal, most=most
        )
    if any(isinstance(part, Frames) for key in value for part in _parts(key)):
        return _stacks(name, value)
    return _sums(name, value, adds_up=adds_up)


def json_rows(name: str, value: object) -> Iterator[dict[str, object]]:
    """Yield one object per key: `map`, `key`, and `value`, or `buckets` of [low, high, count], or `count`, `total` and
    `mean`; of a list one object with its `values`."""
    if isinstance(value, list):
        yield {"map": name, "values": [_json(one) for one in value]}
        return
    items = value.items() if isinstance(value, dict) else [(None, value)]
    for key, one in items:
        row: dict[str, object] = {"map": name}
        if key is not None:
            row["key"] = _json(key)
        if isinstance(one, Distribution):
            row |= {"total": one.total, "mean": one.mean, "buckets": [list(bucket) for bucket in one.rows]}
        elif isinstance(one, Average):
            row |= {"count": one.count, "total": one.total, "mean": one.mean}
        else:
            row["value"] = _json(one)
        yield row


def _json(one: object) -> object:
    """Return *one* for JSON; a number that is shown by a name is that name there too."""
    if isinstance(one, tuple):
        return [_json(part) for part in one]
    return one.name if isinstance(one, KnownAddress | KnownCgroup) else one


def _parts(key: object) -> tuple[object, ...]:
    return key if isinstance(key, tuple) and not isinstance(key, Frames) else (key,)


def key_text(key: object) -> str:
    """Return a key as people read it."""
    return ", ".join(map(str, _parts(key)))


def _values(name: str, values: Sequence[object]) -> str:
    """Return the elements of an array or a queue; of many only those that aren't zero."""
    from kprobes.render.escape import escape

    few = len(values) <= FEW_VALUES
    shown = [(number, one) for number, one in enumerate(values) if few or any(_parts(one))]
    empty = len(values) - len(shown)
    head = f"{escape(name)}: {len(values)} values" + (f", {empty} of them zero" if empty else "")
    return "".join(f"{line}\n" for line in (head, *(f"  [{n}] {escape(key_text(one))}" for n, one in shown)))


def _stacks(name: str, value: Mapping[object, object]) -> str:
    """Return counts by stack: the frames one below the other, what else is in the key, and how often."""
    from kprobes.render.escape import escape

    lines = [f"{escape(name)}: {len(value)} {'stack' if len(value) == 1 else 'stacks'}"]
    for key, count in value.items():
        rest = []
        for part in _parts(key):
            if isinstance(part, Frames):
                lines += [f"    {escape(frame)}" for frame in part] or ["    (nothing)"]
            else:
                rest.append(f"{escape(str(part))}: ")
        lines += [f"  {''.join(rest)}{count}", ""]
    return "".join(f"{line}\n" for line in lines)


def _picture(title: str, value: Distribution, unit: str) -> Picture:
    from kprobes.render.histogram import Picture

    return Picture(value.rows, title, unit, value.marks(), powers=value.buckets.scale == "log2")


def _sums(name: str, value: dict[object, object], *, adds_up: bool) -> str:
    from kprobes.render.escape import escape

    if not value:
        return f"{escape(name)}: nothing\n"
    if adds_up and all(isinstance(one, int) for one in value.values()):
        from kprobes.render.counts import counts

        return counts([(key_text(key), cast("int", one)) for key, one in value.items()], titles=(name, "SUM"))
    lines = [f"  {escape(key_text(key))}: {escape(str(one))}" for key, one in value.items()]
    return "\n".join([f"{escape(name)}: {len(value)} keys", *lines]) + "\n"
