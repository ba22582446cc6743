"""Programs and shared objects by short name: `libc`, `libcrypto`, `bash`, `lib*`, or a path.

On a machine, names are looked up as the loader and the shell would; in a process, among what it has mapped.
"""

from __future__ import annotations

import os
import re
from fnmatch import fnmatchcase

from kprobes.errors import SymbolNotFoundError
from kprobes.frozen import dataclass
from kprobes.symbols.elf import ElfFile
from kprobes.symbols.ldcache import load_ldcache
from kprobes.symbols.maps import Mapping, file_of, load_maps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Protocol
else:
    Protocol = object  # `typing` is 5 ms of every command that compiles

GLOB = re.compile(r"[*?\[]")
MOST_LIBRARIES = 500
# A script may be run by a script; the kernel goes as deep.
SCRIPT_DEPTH = 5
_SEARCHED = ("/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib")


@dataclass(frozen=True, slots=True)
class Object:
    """A file to look for symbols in: *path* opens it from here, *name* is how its user calls it.

    *root* is put before paths of debug files. *mappings* are those of the process that has it mapped, if any.
    """

    name: str
    path: str
    root: str = ""
    mappings: tuple[Mapping, ...] = ()


class Objects(Protocol):
    """Where short names of objects are looked up."""

    def find(self, name: str) -> list[Object]:
        """Return the objects that *name* means; several only for a glob.

        Raises:
            SymbolNotFoundError: there are none.
        """

    def main(self) -> Object | None:
        """Return the program itself, where there is one."""

    def all(self) -> list[Object]:
        """Return the program and all libraries it has or will load at its start; none without a program."""


class MachineObjects:
    """Objects of this machine: `libc` is what the loader takes for it, `bash` what the shell does."""

    def __init__(self, program: str = "") -> None:
        self._program = program
        self._libraries: list[tuple[str, str]] | None = None

    def find(self, name: str) -> list[Object]:
        """Return the objects that *name* means: a path, a library, or a program in PATH."""
        if "/" in name:
            paths = _glob_paths(name) if GLOB.search(name) else [name]
            found = [Object(os.path.realpath(path).rpartition("/")[2], path) for path in paths if _is_file(path)]
        elif GLOB.search(name):
            found = [Object(key, path) for key, path in self._known() if fnmatchcase(key, name) or _is_short(key, name)]
        else:
            found = self._of_program(name) or list(self._by_name(name))[:1]
        if not found:
            raise _unknown(name, (short_name(key) for key, _ in self._known()), "this machine")
        # Of several names for a file the first is the one that programs are linked with: libssl.so.3, then libssl.so.
        return list({os.path.realpath(one.path): one for one in reversed(found)}.values())[::-1]

    def main(self) -> Object | None:
        """Return the program given, if any: of a script, its interpreter."""
        name = self._program
        for _ in range(SCRIPT_DEPTH if name else 0):
            path = name if "/" in name else next(_in_path(name), "")
            if not path or not _is_file(path):
                raise _unknown(name, (), "this machine")
            interpreter = _interpreter(path)
            if not interpreter:
                return Object(os.path.realpath(path).rpartition("/")[2], path)
            name = interpreter
        return None

    def all(self) -> list[Object]:
        """Return the program given and the libraries that it is linked with, theirs included."""
        main = self.main()
        found = {os.path.realpath(main.path): main} if main else {}
        pending = list(found.values())
        while pending and len(found) < MOST_LIBRARIES:
            with ElfFile(pending.pop(0).path) as elf:
                for name in elf.needed:
                    path = self._loaded_for(name, elf)
                    if path and os.path.realpath(path) not in found:
                        found[os.path.realpath(path)] = library = Object(name, path)
                        pending.append(library)
        return list(found.values())

    def _of_program(self, name: str) -> list[Object]:
        """Return the library that the program given loads for *name* from a place that it names itself, if it does."""
        main = self.main()
        if main is None:
            return []
        with ElfFile(main.path) as elf:
            if not elf.search_path:
                return []
        return [one for one in self.all() if one.path != main.path and _is_short(one.name, name)][:1]

    def _loaded_for(self, name: str, elf: ElfFile) -> str:
        """Return the file that the loader takes for the library *name* of *elf*, empty where there is none."""
        if "/" in name:
            return name if _is_file(name) else ""
        origin = os.path.realpath(elf.path).rpartition("/")[0]
        own = [d.replace("$ORIGIN", origin).replace("${ORIGIN}", origin) for d in elf.search_path]
        known = dict(reversed(self._known())).get(name)
        paths = [*(f"{d}/{name}" for d in own), *([known] if known else ()), *(f"{d}/{name}" for d in _SEARCHED)]
        return next((path for path in paths if _is_file(path)), "")

    def _known(self) -> list[tuple[str, str]]:
        if self._libraries is None:
            self._libraries = load_ldcache()
        return self._libraries

    def _by_name(self, name: str) -> Iterator[Object]:
        known = [(key, path) for key, path in self._known() if key.startswith((name, f"lib{name}"))]
        yield from (Object(key, path) for key, path in known if name in (key, short_name(key)))
        yield from (Object(name, path) for path in _in_path(name))
        yield from (Object(key, path) for key, path in known if _is_short(key, name))
        for directory in _SEARCHED:
            try:
                entries = sorted(os.listdir(directory))  # noqa: PTH208 - pathlib is slow to import
            except OSError:
                continue
            yield from (Object(entry, f"{directory}/{entry}") for entry in entries if _is_short(entry, name))


class ProcessObjects:
    """Objects that the process *pid* has mapped.

    Raises:
        TargetError: there is no such process.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._objects = _mapped_objects(pid, load_maps(pid))

    def find(self, name: str) -> list[Object]:
        """Return the mapped objects that *name* means, by path as the process sees it or by short name."""
        found = [one for one in self._objects if _is_meant(one, name)]
        if not found and "/" in name and not GLOB.search(name):
            # Another name of the file: /lib is a link to /usr/lib on many machines.
            inside = self.with_file(f"/proc/{self.pid}/root{name}") if name.startswith("/") else None
            found = [one for one in (inside or self.with_file(name),) if one]
        if not found:
            raise _unknown(name, (short_name(one.name) for one in self._objects), f"process {self.pid}")
        exact = [one for one in found if one.name == name]
        return found if GLOB.search(name) else (exact or found)[:1]

    def main(self) -> Object | None:
        """Return the program of the process."""
        try:
            found = os.stat(f"/proc/{self.pid}/exe")  # noqa: PTH116
        except OSError:
            return None
        device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
        same = [one for one in self._objects if _identity(one) == (device, found.st_ino)]
        # Overlay file systems give the mapping another device than the file: the path decides then.
        path = os.readlink(f"/proc/{self.pid}/exe").removesuffix(" (deleted)")  # noqa: PTH115
        return next(iter(same or [one for one in self._objects if one.mappings[0].path == path]), None)

    def with_file(self, path: str) -> Object | None:
        """Return the mapped object that is the file *path* as seen from here, or None."""
        try:
            found = os.stat(path)  # noqa: PTH116
        except OSError:
            return None
        for one in self._objects:
            try:
                other = os.stat(one.path)  # noqa: PTH116
            except OSError:
                continue
            if (other.st_dev, other.st_ino) == (found.st_dev, found.st_ino):
                return one
        return None

    def all(self) -> list[Object]:
        """Return everything that is mapped with code, in the order of addresses."""
        return list(self._objects)


def short_name(name: str) -> str:
    """Return `libc` for `libc.so.6` and `libfoo` for `libfoo-1.2.so`."""
    return re.sub(r"(-[\d.]+)?\.so(\.[\w.]*)?$", "", name)


def _in_path(name: str) -> Iterator[str]:
    """Return the programs that a shell would run for *name*, the first being the one."""
    for directory in os.environ.get("PATH", os.defpath).split(":"):
        path = f"{directory}/{name}"
        if directory.startswith("/") and os.access(path, os.X_OK) and _is_file(path):
            yield path


def _interpreter(path: str) -> str:
    """Return the interpreter that runs the script *path*, empty for what is no script."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC), "rb", buffering=0) as file:
            line = file.read(256).partition(b"\n")[0]
    except OSError:
        return ""
    words = line[2:].split()
    if not line.startswith(b"#!") or not words:
        return ""
    # `#!/usr/bin/env [-S] python3`
    if words[0].endswith(b"/env"):
        words = [word for word in words[1:] if not word.startswith(b"-") and b"=" not in word] or words
    return words[0].decode("utf-8", "surrogateescape")


def _is_short(key: str, name: str) -> bool:
    """Return whether *name* (may be a glob, may lack `lib`) means the object called *key*."""
    if name == key or (".so" in name and key.startswith(f"{name}.")):  # libc.so.6, libsqlite3.so.0 for ...so.0.8.6
        return True
    short = short_name(key)
    if short == key and ".so" not in key:
        return fnmatchcase(key, name)
    return fnmatchcase(short, name) or fnmatchcase(short, f"lib{name}")


def _is_meant(one: Object, name: str) -> bool:
    if "/" in name:
        path = one.mappings[0].path
        if GLOB.search(name):
            return fnmatchcase(path, name)
        return path in (name, os.path.abspath(name)) or one.path == name  # noqa: PTH100
    return _is_short(one.name, name)


def _mapped_objects(pid: int, mappings: Iterable[Mapping]) -> list[Object]:
    files: dict[tuple[str, int], list[Mapping]] = {}
    for mapping in mappings:
        if mapping.inode:
            files.setdefault((mapping.device, mapping.inode), []).append(mapping)
    found = []
    for parts in files.values():
        if any(part.is_code for part in parts):
            first = parts[0]
            found.append(Object(first.path.rpartition("/")[2], file_of(pid, first), f"/proc/{pid}/root", tuple(parts)))
    return found


def _identity(one: Object) -> tuple[str, int]:
    return one.mappings[0].device, one.mappings[0].inode


def _glob_paths(pattern: str) -> list[str]:
    from glob import glob

    return sorted(glob(pattern))  # noqa: PTH207


def _is_file(path: str) -> bool:
    return os.path.isfile(path)  # noqa: PTH113


def _unknown(name: str, known: Iterable[str], where: str) -> SymbolNotFoundError:
    from kprobes.symbols.nearest import nearest_names

    near = nearest_names(name, known)
    hint = f"did you mean {', '.join(near)}?" if near else "give a path, or -p PID to name what a process has mapped"
    return SymbolNotFoundError(name, nearest=near, where=where, hint=hint, thing="program or library")
