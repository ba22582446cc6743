"""What maps hold, as text or JSON rows: sums and distributions, with or without keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO, cast

from kprobes.events.distribution import Distribution

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kprobes.render.histogram import Picture
    from kprobes.render.terminal import Terminal

MOST_PICTURES = 5


def write_value(name: str, value: object, stream: TextIO, *, as_json: bool, unit: str = "") -> None:
    """Write what the map *name* holds: a dict by key, a Distribution, or a number."""
    if as_json:
        from kprobes.render.json_lines import JsonLines

        JsonLines(stream).write(json_rows(name, value))
        return
    from kprobes.render.terminal import Terminal

    stream.write(picture_of(name, value, Terminal.of(stream), unit=unit))


def picture_of(name: str, value: object, terminal: Terminal, *, unit: str = "", most: int = MOST_PICTURES) -> str:
    """Return *value* as text for people; of histograms by key the *most* frequented are shown."""
    from kprobes.render.histogram import histogram, histograms

    if isinstance(value, Distribution):
        return histogram(_picture(name, value, unit), terminal)
    if not isinstance(value, dict):
        return f"{name}: {value}\n"
    if value and isinstance(next(iter(value.values())), Distribution):
        ranked = sorted(value.items(), key=lambda item: -item[1].total)
        return histograms(
            [_picture(f"{name} [{key_text(key)}]", one, unit) for key, one in ranked], terminal, most=most
        )
    return _sums(name, value)


def json_rows(name: str, value: object) -> Iterator[dict[str, object]]:
    """Yield one object per key: `map`, `key`, and `value` or `buckets` of [low, high, count]."""
    items = value.items() if isinstance(value, dict) else [(None, value)]
    for key, one in items:
        row: dict[str, object] = {"map": name}
        if key is not None:
            row["key"] = list(key) if isinstance(key, tuple) else key
        if isinstance(one, Distribution):
            row |= {"total": one.total, "mean": one.mean, "buckets": [list(bucket) for bucket in one.rows]}
        else:
            row["value"] = list(one) if isinstance(one, tuple) else one
        yield row


def key_text(key: object) -> str:
    """Return a key as people read it."""
    return ", ".join(map(str, key)) if isinstance(key, tuple) else str(key)


def _picture(title: str, value: Distribution, unit: str) -> Picture:
    from kprobes.render.histogram import Picture

    return Picture(value.rows, title, unit, value.marks(), powers=value.buckets.scale == "log2")


def _sums(name: str, value: dict[object, object]) -> str:
    from kprobes.render.escape import escape

    if not value:
        return f"{escape(name)}: nothing\n"
    if all(isinstance(one, int) for one in value.values()):
        from kprobes.render.counts import counts

        return counts([(key_text(key), cast("int", one)) for key, one in value.items()], titles=(name, "SUM"))
    lines = [f"  {escape(key_text(key))}: {escape(str(one))}" for key, one in value.items()]
    return "\n".join([f"{escape(name)}: {len(value)} keys", *lines]) + "\n"
