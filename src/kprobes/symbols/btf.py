"""BTF: the kernel's type information, as records. `btf_types` makes C types of them.

The blob of a kernel holds some 130,000 records of unequal length in 5 to 6 MB. To reach record *id* one must know where
it begins, which takes a pass over all of them (about 50 ms in Python); to find a name, where the name stands in the
string section. So a blob comes with two tables, `offsets` (where each record begins) and `names` (the string offset of
its name), and a name is found with two searches through bytes (about 1 ms). `load_btf` keeps blob and tables together
in one file on disk, which is mapped: what isn't asked for isn't read.

The blob of a module is *split*: its ids and string offsets continue those of vmlinux, the base.

Source: Documentation/bpf/btf.rst and include/uapi/linux/btf.h of Linux.
"""

from __future__ import annotations

import struct

from kprobes.errors import FormatError
from kprobes.frozen import dataclass
from kprobes.symbols.cache import open_cached, write_cached
from kprobes.symbols.source import read_source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAGIC = 0xEB9F
HEADER = struct.Struct("<HBBIIIII")
SIZE_LIMIT = 256 << 20
NAME_LIMIT = 512
# Looking up so many functions one by one costs as much as an index of all.
MANY = 12


class Kind:
    """The kinds of records, as the kernel numbers them."""

    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


# 32-bit words of a record by kind: those it always has, and those of each of its `vlen` entries.
_FIXED = (0, 4, 3, 6, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4, 3, 3, 4, 3, 3)
_EACH = (0, 0, 0, 0, 3, 3, 2, 0, 0, 0, 0, 0, 0, 2, 0, 3, 0, 0, 0, 3)


@dataclass(frozen=True, slots=True)
class Record:
    """One record. *value* is its size or the id it refers to; *words* are those behind the common three."""

    id: int
    kind: int
    name_offset: int
    vlen: int
    flag: bool
    value: int
    words: memoryview[int]


class Btf:
    """One blob, its records by id and by name.

    Ids run from *first* to below *count*; id 0 is `void`; below *first* they are those of *base*.

    Raises:
        FormatError: the blob is malformed.
    """

    def __init__(self, data: bytes | memoryview, *, base: Btf | None = None, tables: _Tables | None = None) -> None:
        view = memoryview(data)
        types, strings = _sections(view)
        self.base = base
        self.first: int = base.count if base else 1
        self.strings_start = base.strings_end if base else 0
        self.strings_end: int = self.strings_start + len(strings)
        self._types = types
        self._strings = bytes(strings)
        self._tables = tables or _scan(types.cast("I"))
        self._words = types.cast("I")
        self._functions: dict[bytes, list[int]] | None = None
        self._asked = 0
        self.count: int = self.first + len(self._tables.offsets)

    def record(self, number: int) -> Record:
        """Return the record with the id *number*.

        Raises:
            FormatError: there is none; something in the blob refers to it in error.
        """
        if self.base is not None and 0 < number < self.first:
            return self.base.record(number)
        if not self.first <= number < self.count:
            raise FormatError(f"BTF refers to type {number} of {self.count - 1}")
        start = self._tables.offsets[number - self.first]
        name, info, value = self._words[start : start + 3]
        kind, vlen = info >> 24 & 31, info & 0xFFFF
        end = start + _FIXED[kind] + vlen * _EACH[kind]
        return Record(number, kind, name, vlen, bool(info >> 31), value, self._words[start + 3 : end])

    def string(self, offset: int) -> str:
        """Return the string at *offset* (empty for 0).

        Raises:
            FormatError: *offset* lies outside, or the string has no end.
        """
        if offset < self.strings_start and self.base is not None:
            return self.base.string(offset)
        start = offset - self.strings_start
        if not 0 <= start < len(self._strings):
            raise FormatError(f"BTF refers to a string at {offset:#x}, beyond the end")
        end = self._strings.find(b"\0", start, start + NAME_LIMIT)
        if end < 0:
            raise FormatError(f"BTF string at {offset:#x} is longer than {NAME_LIMIT} bytes")
        return self._strings[start:end].decode("utf-8", "backslashreplace")

    def functions(self, name: str) -> Sequence[int]:
        """Return the ids of the functions called *name*, ascending; after MANY names from an index of all of them."""
        if self._functions is None:
            self._asked += 1
            if self._asked <= MANY:
                return [record.id for record in self.named(name, frozenset({Kind.FUNC}))]
            self._functions = self._index_functions()
        return self._functions.get(name.encode("utf-8", "surrogateescape"), ())

    def _index_functions(self) -> dict[bytes, list[int]]:
        found: dict[bytes, list[int]] = {}
        words, strings, start = self._words, self._strings, self.strings_start
        for number, at in enumerate(self._tables.offsets, self.first):
            if words[at + 1] >> 24 & 31 == Kind.FUNC and words[at] >= start:
                name = words[at] - start
                found.setdefault(strings[name : strings.find(b"\0", name, name + NAME_LIMIT)], []).append(number)
            elif words[at + 1] >> 24 & 31 == Kind.FUNC:
                found.setdefault(self.string(words[at]).encode(), []).append(number)
        return found

    def named(self, name: str, kinds: frozenset[int]) -> Iterator[Record]:
        """Return the records called *name* of one of *kinds*, of this blob alone, in ascending order of ids."""
        for offset in self._string_offsets(name):
            for index in _find_words(self._tables.names, offset):
                record = self.record(self.first + index)
                if record.kind in kinds:
                    yield record

    def enumerations_with(self, name: str) -> Iterator[tuple[Record, int]]:
        """Return the enumerations of this blob with a constant *name*, and its place among their entries."""
        from bisect import bisect_right

        offsets = self._tables.offsets
        for string in self._string_offsets(name):
            for word in _find_words(self._types, string):
                record = self.record(self.first + bisect_right(offsets, word) - 1)
                each = _EACH[record.kind]
                place, rest = divmod(word - offsets[record.id - self.first] - 3, each or 1)
                if record.kind in (Kind.ENUM, Kind.ENUM64) and place >= 0 and not rest:
                    yield record, place

    def names(self, kinds: frozenset[int]) -> Iterator[str]:
        """Return the names of all records of *kinds*. Slow: for messages."""
        words = self._words
        for start in self._tables.offsets:
            if words[start] and words[start + 1] >> 24 & 31 in kinds:
                yield self.string(words[start])

    def _string_offsets(self, name: str) -> Iterator[int]:
        needle = b"\0" + name.encode("utf-8", "surrogateescape") + b"\0"
        if not name or b"\0" in needle[1:-1]:
            return
        if self.base is not None:
            yield from self.base._string_offsets(name)
        at = self._strings.find(needle)
        while at >= 0:
            yield self.strings_start + at + 1
            at = self._strings.find(needle, at + 1)


@dataclass(frozen=True, slots=True)
class _Tables:
    """For each record in order: the word it begins at, and the string offset of its name."""

    offsets: memoryview[int]
    names: memoryview[int]


def _sections(view: memoryview) -> tuple[memoryview, memoryview]:
    """Return the type and the string section of a blob."""
    if len(view) < HEADER.size:
        raise FormatError("BTF is shorter than its header")
    magic, version, _, header, type_at, type_length, string_at, string_length = HEADER.unpack_from(view)
    if magic != MAGIC:
        foreign = "of the other byte order" if magic == 0x9FEB else "not BTF"
        raise FormatError(f"type information is {foreign} (it begins with {magic:#06x})")
    if version != 1 or header < HEADER.size:
        raise FormatError(f"BTF of an unknown version: {version}, header of {header} bytes")
    body = view[header:]
    if type_at + type_length > len(body) or string_at + string_length > len(body) or (type_at | type_length) & 3:
        raise FormatError("BTF sections reach beyond the end")
    strings = body[string_at : string_at + string_length]
    if len(strings) and strings[-1] != 0:
        raise FormatError("BTF strings have no end")
    return body[type_at : type_at + type_length], strings


class _Steps(dict[int, int]):
    """`info` word -> words of the record; few thousand differ in a kernel."""

    def __missing__(self, info: int) -> int:
        kind = info >> 24 & 31
        if not Kind.INT <= kind <= Kind.ENUM64:
            raise FormatError(f"BTF of an unknown kind: {kind}")
        self[info] = step = _FIXED[kind] + (info & 0xFFFF) * _EACH[kind]
        return step


def _scan(words: memoryview[int]) -> _Tables:
    from array import array

    offsets, names = array("I"), array("I")
    add_offset, add_name = offsets.append, names.append
    steps, at, end = _Steps(), 0, len(words)
    try:
        while at < end:
            add_offset(at)
            add_name(words[at])
            at += steps[words[at + 1]]
    except IndexError:
        at = end + 1
    if at != end:
        raise FormatError("the last record of the BTF is cut off")
    return _Tables(memoryview(offsets), memoryview(names))


def _find_words(table: memoryview, word: int) -> Iterator[int]:
    """Return the indices of *word* in a table of 32-bit words."""
    data = bytes(table)
    needle = word.to_bytes(4, "little")
    at = data.find(needle)
    while at >= 0:
        if not at & 3:
            yield at >> 2
        at = data.find(needle, at + 1)


# The file on disk: this header, offsets, names, the blob.
_FILE = struct.Struct("<8sIII4x")
_FILE_MAGIC = b"kpbtf\0\0\1"


def load_btf(path: str, *, base: Btf | None = None, key: str = "") -> Btf:
    """Read the BTF file *path*.

    *key* names its content (the build-id of the kernel): with it, blob and tables are kept on disk. Without one, or for
    a module (they are small), they are made anew.

    Raises:
        FormatError: the file can't be read or isn't BTF.
    """
    name = f"btf-{key}" if key.isalnum() and base is None else ""
    if name:
        kept = _load_kept(name)
        if kept is not None:
            return kept
    data = read_source(path, SIZE_LIMIT)
    btf = Btf(data, base=base)
    if name:
        tables = btf._tables
        head = _FILE.pack(_FILE_MAGIC, len(tables.offsets), len(data), _checksum(tables))
        write_cached(name, (head, tables.offsets, tables.names, data))
    return btf


def _load_kept(name: str) -> Btf | None:
    import mmap
    import os

    descriptor = open_cached(name)
    if descriptor is None:
        return None
    try:
        view = memoryview(mmap.mmap(descriptor, 0, prot=mmap.PROT_READ))
        return _parse_kept(view)
    except (OSError, ValueError, struct.error):  # an empty file, a cut or scribbled one: made anew
        return None
    finally:
        os.close(descriptor)


def _parse_kept(view: memoryview) -> Btf | None:
    magic, count, length, checksum = _FILE.unpack_from(view)
    split, end = _FILE.size + 4 * count, _FILE.size + 8 * count
    if magic != _FILE_MAGIC or len(view) != end + length:
        return None
    tables = _Tables(view[_FILE.size : split].cast("I"), view[split:end].cast("I"))
    if _checksum(tables) != checksum:
        return None
    return Btf(view[end:], tables=tables)


def _checksum(tables: _Tables) -> int:
    from zlib import crc32

    return crc32(tables.names, crc32(tables.offsets))
