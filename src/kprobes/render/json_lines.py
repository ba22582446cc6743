"""Objects as NDJSON: one JSON object a line, for programs.

Lines are pure ASCII without control characters, so they are safe on a terminal too. Integers are exact, whatever their
size. Bytes that are no UTF-8 stand as `\\xff` in the text: JSON has no bytes, and lone surrogates break its readers.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_DEEPEST = 20


class JsonLines:
    """Writes objects to *stream*, each as one line with its keys in their order."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, objects: Iterable[Mapping[str, Any]]) -> None:
        """Write each of *objects* as a line. Values: None, bool, numbers, text, bytes, and lists and dicts of them."""
        self._stream.write("".join([f"{json_line(item)}\n" for item in objects]))


def json_line(item: Mapping[str, Any]) -> str:
    """Return *item* as one line of JSON, without the line break."""
    try:
        line = _encode(item)
    except TypeError:  # a dict whose keys are no strings
        line = _encode(_plain(item))
    if "\\udc" in line:
        line = _encode(_plain(item))
    return line.replace("\x7f", "\\u007f") if "\x7f" in line else line


def _fallback(value: object) -> object:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return list(value) if isinstance(value, (set, frozenset)) else str(value)


_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), default=_fallback).encode


def _plain(value: Any, depth: int = 0) -> Any:
    """Return *value* with surrogates as `\\xNN`, and keys that are no strings as text."""
    if isinstance(value, str):
        return _valid(value)
    if depth > _DEEPEST:
        return _valid(str(value))
    if isinstance(value, dict):
        return {_key(key): _plain(each, depth + 1) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each, depth + 1) for each in value]
    return value


def _key(key: Any) -> str:
    if isinstance(key, tuple):
        return ", ".join(map(_key, key))
    return _valid(str(key))


def _valid(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
