"""Which function an IFUNC chose in a running process.

`memcpy` of glibc is a name for a *resolver*, which the loader calls once to learn which of a dozen functions suits the
CPU. The answer stands in memory, in the slot of a relocation: an IRELATIVE one of the library itself, whose addend is
the resolver, or one by name of whoever calls it.

Source: System V ABI AMD64 supplement, 4.4 (relocations); sysdeps/x86_64/dl-machine.h of glibc.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from kprobes.symbols.elf import ElfFile, Section
from kprobes.symbols.maps import load_bias

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kprobes.symbols.objects import Object

_RELOCATION = struct.Struct("<QQq")
SHT_RELA = 4
# IRELATIVE, GLOB_DAT and JUMP_SLOT, by machine.
_KINDS = {"x86_64": (37, (6, 7)), "aarch64": (1032, (1025, 1026))}


def chosen_function(pid: int, where: Object, resolver: int, callers: list[Object], name: str) -> int | None:
    """Return the address, as the file *where* has it, of what the IFUNC *name* with *resolver* stands for in *pid*.

    *callers* are the objects of the process, whose slots are looked through. None where no slot tells.
    """
    with ElfFile(where.path) as elf:
        bias = load_bias(elf, where.mappings)
        if bias is None or elf.machine not in _KINDS:
            return None
        irelative, by_name = _KINDS[elf.machine]
        slots = [bias + at for at, kind, _, addend in _relocations(elf) if kind == irelative and addend == resolver]
        for slot in slots:
            address = _read_pointer(pid, slot) - bias
            if elf.is_code(address) and address != resolver:
                return address
        for caller in callers:
            for slot in _slots_by_name(caller, name, by_name):
                address = _read_pointer(pid, slot) - bias
                if elf.is_code(address) and address != resolver:
                    return address
    return None


def _slots_by_name(caller: Object, name: str, kinds: tuple[int, ...]) -> Iterator[int]:
    wanted = name.encode() + b"\0"
    with ElfFile(caller.path) as elf:
        bias = load_bias(elf, caller.mappings)
        symbols, strings = elf.section(".dynsym"), elf.section(".dynstr")
        if bias is None or symbols is None or strings is None:
            return
        names, table = elf.section_data(strings), elf.section_data(symbols)
        if wanted not in names:
            return
        for at, kind, symbol, _ in _relocations(elf):
            if kind in kinds and 24 * symbol + 24 <= len(table):
                place = int.from_bytes(table[24 * symbol : 24 * symbol + 4], "little")
                if names.startswith(wanted, place):
                    yield bias + at


def _relocations(elf: ElfFile) -> Iterator[tuple[int, int, int, int]]:
    """Return (place, kind, symbol, addend) of the relocations that the loader carries out."""
    for section in elf.sections:
        if section.type == SHT_RELA and _is_loaded(elf, section):
            data = elf.section_data(section)
            for at, info, addend in _RELOCATION.iter_unpack(data[: len(data) // _RELOCATION.size * _RELOCATION.size]):
                yield at, info & 0xFFFFFFFF, info >> 32, addend


def _is_loaded(elf: ElfFile, section: Section) -> bool:
    return section.address != 0 and elf.offset_of(section.address) == section.offset


def _read_pointer(pid: int, address: int) -> int:
    """Return the pointer at *address* in the process *pid*, 0 where it can't be read."""
    try:
        descriptor = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        return int.from_bytes(os.pread(descriptor, 8, address), "little")
    except (OSError, OverflowError):
        return 0
    finally:
        os.close(descriptor)
