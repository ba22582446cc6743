import contextlib
import ctypes
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kprobes.arch.x86_64.decode import branch_targets
from kprobes.engines.process.procfs import read_maps
from kprobes.errors import FormatError, KprobesError
from kprobes.model.branches import unpack_branches
from kprobes.symbols.code import load_code
from kprobes.symbols.eh_frame import CodeRange, code_ranges, landing_pads
from kprobes.symbols.elf import ElfFile
from kprobes.symbols.elf_symbols import ElfSymbol, ElfSymbols

GOLDEN = Path(__file__).parents[2] / "golden" / "symbols"
LIBRARY = str(GOLDEN / "libsample.so")
BUILD_ID = "0143a8e9793597a4d4057fb4db0c53a9ddb24a54"


@pytest.fixture
def library():
    with ElfFile(LIBRARY) as elf:
        yield ElfSymbols(elf)


def test_header_and_build_id():
    with ElfFile(LIBRARY) as elf:
        assert (elf.kind, elf.machine, elf.build_id) == ("shared", "x86_64", BUILD_ID)
        assert elf.section(".dynsym").address > 0
        assert elf.section(".nothing") is None
    with ElfFile(str(GOLDEN / "sample-throw")) as elf:
        assert (elf.kind, len(elf.build_id)) == ("exec", 40)
    with ElfFile(str(GOLDEN / "libsample.debug")) as elf:
        assert elf.build_id == BUILD_ID


def test_programs_of_this_machine_are_of_the_right_kind():
    with ElfFile(shutil.which("sh")) as elf:
        assert elf.kind == "pie"


def test_addresses_and_file_offsets_are_inverse():
    with ElfFile(str(GOLDEN / "sample-throw")) as elf:
        assert elf.offset_of(0x400148) == 0x148
        assert elf.address_of(0x148) == 0x400148
        assert elf.offset_of(0x10) is None
        assert elf.address_of(1 << 40) is None
        assert elf.is_code(0x400148)
        assert not elf.is_code(0x401008)


def test_exported_function_is_found(library):
    assert library.lookup("sample_two") == [ElfSymbol("sample_two", 0x4F0, 13, "global")]
    assert library.lookup("sample_tw") == []
    assert library.lookup("two") == []
    assert library.lookup("") == []


def test_static_functions_of_one_name_are_all_told(library):
    assert {s.address for s in library.lookup("helper")} == {0x47F, 0x4EC}


def test_ifunc_is_marked(library):
    (chosen,) = library.lookup("sample_chosen")
    assert chosen.ifunc


def test_of_versions_the_default_is_meant(library):
    (found,) = library.lookup("sample_versioned")
    assert found.address == 0x4E4
    assert not found.old


def test_function_in_assembly_without_type_is_found_by_name(library):
    (found,) = library.lookup("sample_asm")
    assert (found.typed, found.size) == (False, 0)
    assert library.size_of(found) == 0x47F - 0x47C


def test_address_is_named_by_the_exported_of_several_names(library):
    symbol, offset = library.symbol_at(0x491 + 3)
    assert (symbol.name, offset) == ("sample_add", 3)
    assert library.symbol_at(0x10) is None


def test_glob_gives_each_address_once_in_order(library):
    assert [s.name for s in library.glob("sample_*")] == [
        "sample_add",
        "sample_hidden",
        "sample_chosen",
        "sample_versioned",
        "sample_versioned",
        "sample_two",
    ]
    assert [s.name for s in library.glob("sample_alias")] == ["sample_alias"]
    assert library.glob("nothing*") == []


def test_nearest_names(library):
    assert "sample_hidden" in library.nearest("sample_hiden")


def test_debugdata_of_a_stripped_file_is_unpacked():
    with ElfFile(str(GOLDEN / "libsample-debugdata.so")) as elf:
        symbols = ElfSymbols(elf)
        assert elf.section(".symtab") is None
        assert symbols.lookup("sample_hidden")[0].address == 0x4A8
        assert symbols.lookup("sample_two")[0].address == 0x4F0


def test_debug_file_is_found_by_build_id_under_a_root(tmp_path):
    with ElfFile(str(GOLDEN / "libsample-stripped.so")) as elf:
        assert ElfSymbols(elf, str(tmp_path)).lookup("sample_hidden") == []
        directory = tmp_path / "usr/lib/debug/.build-id" / BUILD_ID[:2]
        directory.mkdir(parents=True)
        shutil.copy(GOLDEN / "libsample.debug", directory / f"{BUILD_ID[2:]}.debug")
        assert ElfSymbols(elf, str(tmp_path)).lookup("sample_hidden")[0].address == 0x4A8


def test_debug_file_of_another_build_is_not_used(tmp_path):
    directory = tmp_path / "usr/lib/debug/.build-id" / BUILD_ID[:2]
    directory.mkdir(parents=True)
    shutil.copy(GOLDEN / "sample-throw", directory / f"{BUILD_ID[2:]}.debug")
    with ElfFile(str(GOLDEN / "libsample-stripped.so")) as elf:
        assert ElfSymbols(elf, str(tmp_path)).lookup("guarded") == []


# Unwind tables.


def test_unwind_tables_tell_functions_and_landing_pads():
    with ElfFile(str(GOLDEN / "sample-throw")) as elf:
        ranges = code_ranges(elf)
        assert ranges[:2] == [CodeRange(0x400144, 0x400148), CodeRange(0x400148, 0x400171, 0x40022C)]
        assert landing_pads(elf, ranges) == [0x400153]


def test_unwind_tables_agree_with_symbols_in_the_c_library():
    with ElfFile(_libc()) as elf:
        ends = {one.start: one.end for one in code_ranges(elf)}
        sized = [s for s in ElfSymbols(elf).functions if s.size and s.address in ends]
        differing = [s.name for s in sized if ends[s.address] != s.address + s.size]
        assert len(sized) > 1000
        assert len(differing) < 10


def test_what_returns_from_signal_handlers_begins_where_its_code_does():
    code = Path(_libc()).read_bytes()
    mov_15_to_rax_and_syscall = bytes.fromhex("48c7c00f0000000f05")
    at = code.index(mov_15_to_rax_and_syscall)
    assert (at, at + len(mov_15_to_rax_and_syscall)) in load_code(_libc()).functions


def test_code_object_has_functions_as_file_offsets(own_cache):
    code = load_code(str(GOLDEN / "sample-throw"))
    assert (0x148, 0x171) in code.functions
    assert 0x153 in code.entries
    library = load_code(LIBRARY)
    assert (0x4F0, 0x4FD) in library.functions
    assert 0x47C in library.entries


def test_kept_code_object_is_the_same_and_a_damaged_one_is_made_anew(own_cache):
    first = load_code(LIBRARY)
    (kept,) = own_cache.glob("code-*")
    assert load_code(LIBRARY) == first
    kept.write_bytes(kept.read_bytes()[:-8])
    assert load_code(LIBRARY) == first
    kept.write_bytes(b"")
    assert load_code(LIBRARY) == first


def test_branches_of_a_file_are_those_of_its_code_in_memory_and_of_no_other(own_cache):
    made = load_code(_libc(), branches=True)
    (kept,) = own_cache.glob("branches-*")
    assert load_code(_libc(), branches=True) == made
    kept.write_bytes(kept.read_bytes()[:-1] + b"\xff")
    assert load_code(_libc(), branches=True) == made
    assert load_code(_libc()).branches == b""
    one = next(one for one in read_maps(os.getpid()) if one.executable and one.path == _libc())
    code = ctypes.string_at(one.start, one.end - one.start)
    targets = unpack_branches(made.branches, code, one.offset, one.start)
    assert targets == {target for target in branch_targets(code, one.start) if one.start <= target < one.end}
    assert unpack_branches(made.branches, code[:-1] + b"\1", one.offset, one.start) is None
    assert unpack_branches(made.branches, code, one.offset + 4096, one.start) is None
    assert unpack_branches(b"", code, one.offset, one.start) is None


def test_functions_of_a_code_object_do_not_overlap(own_cache):
    flat = [offset for span in load_code(_libc()).functions for offset in span]
    assert flat == sorted(flat)
    assert len(flat) > 2000


# Hostile input.


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no ELF file"),
        (b"#!/bin/sh\n" * 10, "no ELF file"),
        (b"\x7fELF\x01\x01" + bytes(58), "32-bit"),
        (b"\x7fELF\x02\x02" + bytes(58), "big-endian"),
        (Path(LIBRARY).read_bytes()[:100], "beyond the end"),
    ],
)
def test_what_is_no_fitting_elf_file_is_refused(tmp_path, data, message):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(FormatError, match=message):
        ElfFile(str(tmp_path / "x"))


def test_missing_file_and_directory_are_clear_errors(tmp_path):
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(FormatError):
            ElfFile(str(path))
    with pytest.raises(FormatError):
        ElfFile("a\0b")


def test_file_cut_short_while_open_is_an_error_not_a_crash(tmp_path):
    path = tmp_path / "lib.so"
    shutil.copy(LIBRARY, path)
    with ElfFile(str(path)) as elf:
        path.write_bytes(path.read_bytes()[:700])
        with pytest.raises(FormatError, match="cut short"):
            ElfSymbols(elf).lookup("helper")


def test_closing_twice_is_harmless():
    elf = ElfFile(LIBRARY)
    elf.close()
    elf.close()


FILES = {name: (GOLDEN / name).read_bytes() for name in ("libsample.so", "libsample-debugdata.so", "sample-throw")}


@settings(max_examples=120)
@given(
    st.sampled_from(sorted(FILES)),
    st.lists(st.tuples(st.integers(0, 1 << 14), st.integers(0, 255)), min_size=1, max_size=6),
    st.booleans(),
)
def test_scribbled_file_gives_an_error_or_an_answer(tmp_path_factory, name, edits, header):
    data = bytearray(FILES[name])
    for at, value in edits:
        data[at % (64 if header else len(data))] = value
    path = tmp_path_factory.getbasetemp() / "scribbled"
    path.write_bytes(data)
    with contextlib.suppress(KprobesError), ElfFile(str(path)) as elf:
        symbols = ElfSymbols(elf)
        symbols.lookup("helper")
        symbols.glob("sample_*")
        symbols.symbol_at(0x4F1)
        landing_pads(elf, code_ranges(elf))
        load_code(str(path))


def _libc():
    maps = Path("/proc/self/maps").read_text().split("\n")
    return next(line.split()[-1] for line in maps if "/libc.so" in line or "/libc-2" in line)
