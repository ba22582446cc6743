"""Programs with debugging information, built by the machine's compiler, and the addresses of their functions."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

from kprobes.symbols.dwarf.types import ObjectTypes
from kprobes.symbols.elf import ElfFile
from kprobes.symbols.elf_symbols import ElfSymbols

PROGRAMS = Path(__file__).parent / "programs"
C = ("store.c", "other.c")
CPP = ("shop.cc",)


class Built(NamedTuple):
    """A program, and what its debugging information tells."""

    path: Path
    types: ObjectTypes

    def address(self, name: str) -> int:
        """Return the address of the first function *name*."""
        return self.addresses(name)[0]

    def addresses(self, name: str) -> list[int]:
        with ElfFile(str(self.path)) as elf:
            return [symbol.address for symbol in ElfSymbols(elf).lookup(name)]


def build(directory: Path, sources: tuple[str, ...], *flags: str) -> Path:
    """Compile *sources* (names in `programs`, or paths) with *flags* in *directory*; return the program."""
    program = directory / Path(sources[0]).stem
    compiler = "g++" if sources[0].endswith(".cc") else "gcc"
    paths = [str(PROGRAMS / source) for source in sources]
    subprocess.run([compiler, "-o", program.name, *flags, *paths], check=True, cwd=directory)
    return program


def built(directory: Path, sources: tuple[str, ...], *flags: str) -> Built:
    """Compile *sources* and open what they tell."""
    program = build(directory, sources, *flags)
    return Built(program, ObjectTypes(str(program)))
