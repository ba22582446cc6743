"""Kernel modules: which ones the guest needs, in the order of their dependencies, uncompressed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.errors import FormatError

if TYPE_CHECKING:
    from pathlib import Path

# What the channel runs over. A kernel that has one of them built in has no file for it.
CHANNEL = ("virtio_pci", "virtio_console")


def name_of(path: Path) -> str:
    """Return the name of a module by its file's."""
    return path.name.partition(".ko")[0].replace("-", "_")


def needed_modules(directory: Path, wanted: tuple[str, ...]) -> list[Path]:
    """Return the files of the *wanted* modules and of those that they need, in the order of loading.

    *directory* has the modules of one kernel. Dependencies are read from the modules themselves: packages come without
    `modules.dep`.
    """
    files = {name_of(path): path for path in (directory / "kernel").rglob("*.ko*")}
    ordered: list[Path] = []

    def add(name: str) -> None:
        path = files.get(name)
        if path is not None and path not in ordered:
            for needed in dependencies(read_module(path)):
                add(needed)
            ordered.append(path)

    for name in wanted:
        add(name)
    return ordered


def dependencies(module: bytes) -> tuple[str, ...]:
    """Return the names that a module's `depends=` has; its modinfo section is a row of NUL-terminated texts."""
    position = module.find(b"\0depends=")
    if position < 0:
        return ()
    text = module[position + 9 : module.index(b"\0", position + 9)].decode("ascii", "replace")
    return tuple(name.replace("-", "_") for name in text.split(",") if name)


def read_module(path: Path) -> bytes:
    """Return the bytes of a module, decompressed.

    Raises:
        FormatError: it is compressed in a way that is not known here, or broken.
    """
    content = path.read_bytes()
    if path.suffix == ".ko":
        return content
    if path.suffix == ".xz":
        import lzma

        try:
            return lzma.decompress(content)
        except lzma.LZMAError as error:
            raise FormatError(f"the module {path} is broken: {error}") from error
    if path.suffix == ".gz":
        import gzip

        return gzip.decompress(content)
    raise FormatError(f"the module {path} is compressed in an unknown way")
