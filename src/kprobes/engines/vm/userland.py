"""Python and busybox for guests of another architecture than the host's, whose own can't run there. Kept in the cache.

The modules are those that a guest of the host's architecture gets, told by the running Python. Where that is of the
same version they are compiled here; else all of the library goes in as it is, and the guest compiles what it imports.

kernels/userland-arm64/    what the packages hold, and `userland.json`, which names it
"""

from __future__ import annotations

import json
import shutil
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kprobes.engines.vm import cache
from kprobes.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kprobes.engines.vm.arches import GuestArch
    from kprobes.engines.vm.kernels import Progress

LAYOUT = 1
# Parts of Python's library that no guest needs.
_UNUSED = ("test", "idlelib", "lib2to3", "ensurepip", "tkinter", "turtledemo", "pydoc_data", "distutils", "__pycache__")


@dataclass(frozen=True, slots=True)
class Userland:
    """The unpacked packages below *directory*. *python* is the name of the interpreter: `python3.11`."""

    directory: str
    python: str
    arch: str

    @property
    def executable(self) -> Path:
        """Return the interpreter's file."""
        return Path(self.directory, "usr/bin", self.python)

    @property
    def library(self) -> Path:
        """Return the directory of Python's library."""
        return Path(self.directory, "usr/lib", self.python)

    @property
    def busybox(self) -> Path:
        """Return the static busybox."""
        found = (Path(self.directory, place, "busybox") for place in ("bin", "usr/bin"))
        return next(path for path in found if path.is_file())

    @property
    def is_ours(self) -> bool:
        """Return whether the running Python compiles for it."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.python == version and sys.implementation.name == "cpython"

    def modules(self, names: set[str]) -> Iterator[tuple[str, Path]]:
        """Yield name and file of the library's modules: those of *names* where `is_ours`, else all."""
        if self.is_ours:
            for name in sorted(names):
                path = self._file_of(name)
                if path is not None:
                    yield name, path
            return
        for path in sorted(self.library.rglob("*.py")):
            parts = path.relative_to(self.library).parts
            if not set(parts) & set(_UNUSED):
                yield ".".join(parts).removesuffix(".py").removesuffix(".__init__"), path
        for path in sorted((self.library / "lib-dynload").glob("*.so")):
            yield path.name.partition(".")[0], path

    def _file_of(self, name: str) -> Path | None:
        place = self.library / name.replace(".", "/")
        candidates = [place / "__init__.py", place.with_name(f"{place.name}.py")]
        candidates += (self.library / "lib-dynload").glob(f"{name}.*.so")
        return next((path for path in candidates if path.is_file()), None)

    def can_load(self, extension: Path) -> bool:
        """Return whether the libraries that an extension module asks for are there; Python does without some of
        them."""
        return all(self._library(name) is not None for name in needed(extension.read_bytes()))

    def libraries(self, files: list[Path]) -> dict[str, Path]:
        """Return the shared libraries that *files* need, and the loader, by the names under which they are looked up.

        Raises:
            TargetError: one is in none of the packages.
        """
        found: dict[str, Path] = {}
        wanted = [f"ld-linux-{self.arch}.so.1", *(name for file in files for name in needed(file.read_bytes()))]
        while wanted:
            name = wanted.pop()
            path = self._library(name)
            if path is None:
                raise TargetError(f"the packages of the guest's Python have no {name}")
            if name not in found:
                found[name] = path
                wanted += needed(path.read_bytes())
        return found

    def _library(self, name: str) -> Path | None:
        homes = (Path(self.directory, top, f"{self.arch}-linux-gnu") for top in ("lib", "usr/lib"))
        return next((home / name for home in homes if (home / name).is_file()), None)


def open_userland(arch: GuestArch, progress: Progress | None = None) -> Userland:
    """Return the userland for *arch*, downloaded if need be.

    Raises:
        DownloadError: it could not be had.
    """
    home = cache.cache_directory("kernels")
    directory = home / f"userland-{arch.debian}"
    found = _read(directory)
    if found is not None:
        return found
    with cache.locked(home / f"{directory.name}.lock"):
        return _read(directory) or _fetch(arch, directory, progress)


def _read(directory: Path) -> Userland | None:
    try:
        described = json.loads((directory / "userland.json").read_text())
        return Userland(**described) if described.pop("layout", None) == LAYOUT else None
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _fetch(arch: GuestArch, directory: Path, progress: Progress | None) -> Userland:
    from kprobes.engines.vm import packages

    cache.sweep(directory.parent, f".download-{directory.name}.*")
    with packages.unpacked_userland(arch, directory.parent, progress) as tree:
        python = next(path.name for path in tree.glob("usr/bin/python3.*"))
        described = Userland(str(directory), python, arch.name)
        text = {"layout": LAYOUT, "directory": described.directory, "python": python, "arch": arch.name}
        (tree / "userland.json").write_text(json.dumps(text))
        shutil.rmtree(directory, ignore_errors=True)
        tree.rename(directory)
    return described


def needed(content: bytes) -> list[str]:
    """Return the names of the libraries that an ELF file (64-bit, little-endian) asks for; none where it asks for none.

    Source: elf(5), PT_LOAD, PT_DYNAMIC, DT_NEEDED, DT_STRTAB.
    """
    if not content.startswith(b"\x7fELF\x02\x01"):
        return []
    table = struct.unpack_from("<Q", content, 32)[0]
    size, count = struct.unpack_from("<HH", content, 54)
    heads = [struct.unpack_from("<IIQQQQ", content, table + index * size) for index in range(count)]
    dynamic = next(((head[2], head[5]) for head in heads if head[0] == 2), None)
    if dynamic is None:
        return []
    entries = list(struct.iter_unpack("<qQ", content[dynamic[0] : dynamic[0] + dynamic[1] // 16 * 16]))
    address = next((value for tag, value in entries if tag == 5), 0)
    loads = (head for head in heads if head[0] == 1 and head[3] <= address < head[3] + head[5])
    strings = next((head[2] + address - head[3] for head in loads), 0)
    names = [strings + value for tag, value in entries if tag == 1]
    return [content[at : content.index(b"\0", at)].decode() for at in names]
