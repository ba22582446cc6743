"""Where the debugging information of a program or library lies: in the file itself, or in a file of its own.

Distributions ship it apart, under `/usr/lib/debug/.build-id`, or beside the program by the name that its
`.gnu_debuglink` gives. Directories in KPROBES_DEBUG_DIR (separated by colons) are looked into first. Nothing is fetched
from a network.

Source: GDB manual, 18.3 (Debugging Information in Separate Files).
"""

from __future__ import annotations

import os

from kprobes.errors import FormatError
from kprobes.frozen import dataclass
from kprobes.symbols.elf import SHT_NOBITS, ElfFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTORY = "/usr/lib/debug"
# A debug file larger than that isn't read for its checksum.
CHECKSUM_LIMIT = 1 << 30
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class DebugFile:
    """*path* is the file that has the section asked for, empty where none has; *tried* are all that the answer depends
    on, whether they exist or not."""

    path: str
    tried: tuple[str, ...]


def find_debug_file(elf: ElfFile, section: str, root: str = "") -> DebugFile:
    """Return where the *section* (`.debug_info`) of *elf* lies; *root* is put before the paths of its debug files."""
    if _has(elf, section):
        return DebugFile(elf.path, (elf.path,))
    tried = [elf.path]
    for path, checksum in _candidates(elf, root):
        if path in tried:
            continue
        tried.append(path)
        if _fits(path, elf.build_id, checksum, section):
            return DebugFile(path, tuple(tried))
    return DebugFile("", tuple(tried))


def debug_directories(root: str = "") -> list[str]:
    """Return where debug files are looked for: as the environment says, as the process sees it, on this machine."""
    if root and _is_same(root, "/"):
        root = ""  # one name for a file, whichever process is looked at
    own = [directory for directory in os.environ.get("KPROBES_DEBUG_DIR", "").split(":") if directory]
    return list(dict.fromkeys([*own, root + DIRECTORY, DIRECTORY]))


def _candidates(elf: ElfFile, root: str) -> Iterator[tuple[str, int | None]]:
    """Return (path, checksum) of the files that *elf* may mean; no checksum where the build-id must be the same."""
    if len(elf.build_id) > 2:
        for directory in debug_directories(root):
            yield f"{directory}/.build-id/{elf.build_id[:2]}/{elf.build_id[2:]}.debug", None
    link = elf.section(".gnu_debuglink")
    if link is None:
        return
    data = elf.section_data(link)
    name = data.partition(b"\0")[0].decode("utf-8", "surrogateescape")
    if not name or "/" in name or len(data) < 8:
        return
    checksum = int.from_bytes(data[-4:], "little")
    home = os.path.realpath(elf.path).rpartition("/")[0]
    inside = home.removeprefix(root) if root else home
    places = [home, f"{home}/.debug", *(f"{directory}{inside}" for directory in debug_directories(root))]
    yield from ((f"{place}/{name}", checksum) for place in places)


def _fits(path: str, build_id: str, checksum: int | None, section: str) -> bool:
    if not os.access(path, os.R_OK):
        return False
    try:
        with ElfFile(path) as debug:
            if not _has(debug, section):
                return False
            if checksum is None or (build_id and debug.build_id):
                return debug.build_id == build_id
            return _checksum(debug) == checksum
    except FormatError:
        return False


def _has(elf: ElfFile, section: str) -> bool:
    found = elf.section(section)
    return found is not None and found.type != SHT_NOBITS and found.size > 0


def _is_same(first: str, second: str) -> bool:
    try:
        return os.path.samefile(first, second)  # noqa: PTH121 - pathlib costs start-up time
    except OSError:
        return False


def _checksum(elf: ElfFile) -> int:
    import zlib

    if elf.size > CHECKSUM_LIMIT:
        return -1
    value = 0
    for offset in range(0, elf.size, _CHUNK):
        value = zlib.crc32(elf.read(offset, min(_CHUNK, elf.size - offset)), value)
    return value
