"""The file of a bundle: compiled plans for some targets, and the script that they come from.

    magic "KPB1", u32 length of the head, head (JSON), blobs one after the other, 32 bytes of BLAKE2b of all before

The head says for what the plans are, which stand in the blobs as `model.wire` writes them; nothing is pickled, and
what doesn't fit is refused. The checksum is for files that were damaged on their way, not for those of strangers: the
script of a bundle runs like any other.
"""

from __future__ import annotations

import struct
from json import dumps, loads

from kprobes.errors import FormatError
from kprobes.export.magic import MAGIC
from kprobes.frozen import dataclass
from kprobes.model.store import digest_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeVar

    from kprobes.model.setting import SettingValue

    T = TypeVar("T")

VERSION = 1
LARGEST = 256 << 20
LARGEST_HEAD = 16 << 20
MOST_TARGETS = 64
MOST_PLANS = 8
_LENGTH = struct.Struct("<I")
_DIGEST = 32
REMAKE = "make it again: kprobes export bundle"


@dataclass(frozen=True, slots=True)
class BundledProbe:
    """A probe that was asked for: its kind and its places."""

    kind: str
    places: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BundledTarget:
    """What *plans* are for, the best first.

    *kind* `kernel`: *key* is the kernel's build-id, *release* tells people which it is; *text* is the address of
    `_text` where the code holds addresses of the kernel, 0 where it holds none. `process`: *files* are path and
    build-id of what is probed, *release* the machine's architecture.
    """

    kind: str
    key: str
    release: str
    text: int
    files: tuple[tuple[str, str], ...]
    plans: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Bundle:
    """All of a bundle, made by the version *made_by* of kprobes. *script* is the text of the script called *name*, both
    empty without one; *settings* are the values that it was compiled with."""

    made_by: str
    name: str
    script: str
    settings: tuple[tuple[str, SettingValue], ...]
    probes: tuple[BundledProbe, ...]
    targets: tuple[BundledTarget, ...]


def bundle_to_bytes(bundle: Bundle) -> bytes:
    """Return *bundle* as the content of a file."""
    blobs = [plan for target in bundle.targets for plan in target.plans]
    head = {
        "version": VERSION,
        "made_by": bundle.made_by,
        "name": bundle.name,
        "script": bundle.script,
        "settings": [list(one) for one in bundle.settings],
        "probes": [[one.kind, list(one.places)] for one in bundle.probes],
        "targets": [
            [one.kind, one.key, one.release, one.text, [list(file) for file in one.files], list(map(len, one.plans))]
            for one in bundle.targets
        ],
    }
    text = dumps(head, separators=(",", ":")).encode()
    body = b"".join((MAGIC, _LENGTH.pack(len(text)), text, *blobs))
    return body + digest_of(body, _DIGEST)


def bundle_from_bytes(data: bytes) -> Bundle:
    """Return the bundle in *data*.

    Raises:
        FormatError: it is damaged, or of another version.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise FormatError("this is no bundle", hint=REMAKE)
    if not len(MAGIC) + _LENGTH.size + _DIGEST <= len(data) <= LARGEST:
        raise FormatError("this bundle is cut short, or too large", hint=REMAKE)
    if digest_of(data[:-_DIGEST], _DIGEST) != data[-_DIGEST:]:
        raise FormatError("this bundle is damaged: its checksum doesn't fit", hint="copy it anew")
    start = len(MAGIC) + _LENGTH.size
    end = start + _LENGTH.unpack_from(data, len(MAGIC))[0]
    if end > len(data) - _DIGEST or end - start > LARGEST_HEAD:
        raise _malformed()
    try:
        head = loads(data[start:end])
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, a number of thousands of digits
        raise _malformed() from error
    if not isinstance(head, dict):
        raise _malformed()
    if head.get("version") != VERSION:
        raise FormatError(f"this bundle is of version {str(head.get('version'))[:20]}, not {VERSION}", hint=REMAKE)
    return _bundle(head, data[end:-_DIGEST])


def _malformed() -> FormatError:
    return FormatError("the head of this bundle is malformed", hint=REMAKE)


def _bundle(head: dict[str, object], blobs: bytes) -> Bundle:
    reader = _Blobs(blobs)
    targets = tuple(_target(one, reader) for one in _list(head.get("targets"), MOST_TARGETS))
    reader.finish()
    return Bundle(
        made_by=_is(str, head.get("made_by")),
        name=_is(str, head.get("name")),
        script=_is(str, head.get("script")),
        settings=tuple(map(_setting, _list(head.get("settings"), 1000))),
        probes=tuple(map(_probe, _list(head.get("probes"), 10000))),
        targets=targets,
    )


class _Blobs:
    """Gives out the blobs one by one."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, length: object) -> bytes:
        """Return the next *length* bytes."""
        size = _is(int, length)
        if not 0 <= size <= len(self._data) - self._at:
            raise _malformed()
        self._at += size
        return self._data[self._at - size : self._at]

    def finish(self) -> None:
        """Refuse what is left over."""
        if self._at != len(self._data):
            raise _malformed()


def _target(data: object, blobs: _Blobs) -> BundledTarget:
    parts = _list(data, 6)
    if len(parts) != 6 or parts[0] not in ("kernel", "process"):
        raise _malformed()
    files = tuple(_file(one) for one in _list(parts[4], 10000))
    plans = tuple(map(blobs.take, _list(parts[5], MOST_PLANS)))
    if not plans:
        raise _malformed()
    return BundledTarget(_is(str, parts[0]), _is(str, parts[1]), _is(str, parts[2]), _is(int, parts[3]), files, plans)


def _file(data: object) -> tuple[str, str]:
    path, build_id = _pair(data)
    return _is(str, path), _is(str, build_id)


def _setting(data: object) -> tuple[str, SettingValue]:
    name, value = _pair(data)
    if not isinstance(value, int | str):
        raise _malformed()
    return _is(str, name), value


def _probe(data: object) -> BundledProbe:
    kind, places = _pair(data)
    return BundledProbe(_is(str, kind), tuple(_is(str, one) for one in _list(places, 100000)))


def _pair(data: object) -> Sequence[object]:
    found = _list(data, 2)
    if len(found) != 2:
        raise _malformed()
    return found


def _list(data: object, most: int) -> list[object]:
    if type(data) is not list or len(data) > most:
        raise _malformed()
    return data


def _is(kind: type[T], data: object) -> T:
    if type(data) is not kind:
        raise _malformed()
    return data
