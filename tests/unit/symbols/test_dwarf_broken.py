"""Damaged debugging information gives an error of ours or an answer, in no time."""

from __future__ import annotations

import functools
import random
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.symbols.built import CPP, C, build

from kprobes.errors import FormatError
from kprobes.symbols.debugfile import find_debug_file
from kprobes.symbols.dwarf.places import find_line, inlined_at, line_at, source_files
from kprobes.symbols.dwarf.types import ObjectTypes
from kprobes.symbols.elf import ElfFile

SECTIONS = (
    ".debug_info",
    ".debug_abbrev",
    ".debug_str",
    ".debug_aranges",
    ".debug_rnglists",
    ".debug_line",
    ".debug_types",
)
WAYS = {
    "c": (C, "-gdwarf-5", "-O1"),
    "types": (C, "-gdwarf-4", "-fdebug-types-section", "-O1"),
    "c++": (CPP, "-gdwarf-5", "-O1", "-std=c++17"),
}
NAMES = ("work", "main", "elsewhere", "nothing", "shop::Item::price")


@pytest.fixture(scope="module", params=WAYS)
def original(request, tmp_path_factory) -> Path:
    sources, *flags = WAYS[request.param]
    return build(tmp_path_factory.mktemp("whole"), sources, *flags)


@functools.cache
def _places(path: Path) -> list[tuple[str, int, int]]:
    with ElfFile(str(path)) as elf:
        return [(one.name, one.offset, one.size) for one in elf.sections if one.name in SECTIONS and one.size]


def ask_everything(path: Path, addresses: list[int]) -> None:
    """Ask for all there is; what the file makes impossible is refused."""
    types = _or_refused(lambda: ObjectTypes(str(path)))
    if types is None:
        return
    found = [_or_refused(lambda a=address: types.function_at(a)) for address in addresses]
    for address in addresses:
        _or_refused(lambda a=address: types.declaration_at(a))
    for name in ("struct item", "struct opaque", "shop::Item", "item"):
        struct = _or_refused(lambda n=name: types.struct(n))
        for member in (_or_refused(lambda s=struct: types.member_names(s)) or []) if struct else []:
            _or_refused(lambda s=struct, m=member: types.member(s, m))
    for spelling in ("count_t *", "enum color", "point_t", "shop::Kind"):
        ctype = _or_refused(lambda s=spelling: types.typename(s))
        if ctype is not None and type(ctype).__name__ == "Enum":
            _or_refused(lambda e=ctype: types.enumerators(e))
    _or_refused(lambda: types.enumerator("GREEN"))
    _or_refused(lambda: types.variable("head"))
    _or_refused(lambda: types.nearest_types("struct itm"))
    _or_refused(lambda: find_line(types.program, "store.c", 50, lambda address: address > 0))
    _or_refused(lambda: source_files(types.program))
    for address in addresses:
        _or_refused(lambda a=address: line_at(types.program, a))
    for name in ("twice", "in_header", "shop::Item::price"):
        _or_refused(lambda n=name: inlined_at(types.program, n))
    assert len(found) == len(addresses)


def _or_refused(question):
    try:
        return question()
    except FormatError:
        return None


@settings(max_examples=100)
@given(data=st.data())
def test_damage_is_refused_or_answered(original, tmp_path_factory, data):
    places = _places(original)
    content = bytearray(original.read_bytes())
    name, offset, size = data.draw(st.sampled_from(places))
    for _ in range(data.draw(st.integers(1, 12))):
        at = offset + data.draw(st.integers(0, min(size, 4096) - 1))
        content[at] = data.draw(st.sampled_from((0, 1, 0x7F, 0x80, 0xFF)) | st.integers(0, 255))
    broken = tmp_path_factory.getbasetemp() / "broken"
    broken.write_bytes(bytes(content))
    begin = time.process_time()
    ask_everything(broken, _addresses(original))
    assert time.process_time() - begin < 5, name


@functools.cache
def _addresses(path: Path) -> list[int]:
    from kprobes.symbols.elf_symbols import ElfSymbols

    with ElfFile(str(path)) as elf:
        return [symbol.address for name in NAMES for symbol in ElfSymbols(elf).lookup(name)]


def test_a_section_that_is_cut_short_is_refused_or_answered(original, tmp_path):
    chance = random.Random(1)
    broken = tmp_path / "broken"
    whole = original.read_bytes()
    for name, offset, size in _places(original):
        for _ in range(4):
            kept = chance.randrange(size)
            broken.write_bytes(whole[: offset + kept] + bytes(size - kept) + whole[offset + size :])
            ask_everything(broken, _addresses(original)), name


def test_what_is_no_elf_file_is_refused(tmp_path):
    path = tmp_path / "text"
    path.write_text("hello")
    with pytest.raises(FormatError):
        ObjectTypes(str(path))
    with pytest.raises(FormatError):
        ObjectTypes(str(tmp_path / "nosuch"))


def test_a_file_that_changes_meanwhile_is_refused(tmp_path):
    program = build(tmp_path, C, "-g", "-O1")
    types = ObjectTypes(str(program))
    program.write_bytes(program.read_bytes() + b"\0")
    with pytest.raises(FormatError, match="changed"):
        types.struct("struct item")


def test_a_debug_link_that_leads_outside_is_not_followed(tmp_path):
    import subprocess

    program = build(tmp_path, C, "-g", "-O1", "-Wl,--build-id=none")
    link = tmp_path / "link"
    link.write_bytes(b"../../etc/passwd\0\0\0\0" + bytes(4))
    subprocess.run(["objcopy", "--strip-debug", f"--add-section=.gnu_debuglink={link}", str(program)], check=True)
    with ElfFile(str(program)) as elf:
        found = find_debug_file(elf, ".debug_info")
    assert found.path == ""
    assert not any("passwd" in path for path in found.tried)
