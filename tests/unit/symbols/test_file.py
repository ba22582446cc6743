import contextlib
import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kprobes.errors import (
    AmbiguousSymbolError,
    FormatError,
    KprobesError,
    SymbolNotFoundError,
    TargetError,
    UnprobeableError,
    UsageError,
)
from kprobes.model.plan import Site
from kprobes.symbols.elf import ElfFile
from kprobes.symbols.file import resolve_file, resolve_in_process
from kprobes.symbols.frames import PerfMap, UserFrames, name_user_frames
from kprobes.symbols.ldcache import load_ldcache, parse_ldcache
from kprobes.symbols.maps import Mapping, load_bias, load_maps, parse_maps
from kprobes.symbols.objects import MachineObjects, ProcessObjects, short_name

GOLDEN = Path(__file__).parents[2] / "golden" / "symbols"
LIBRARY = str(GOLDEN / "libsample.so")
C = ctypes.CDLL(None)


def address_of(name):
    return ctypes.cast(getattr(C, name), ctypes.c_void_p).value


def test_function_of_a_file_becomes_a_file_offset():
    (found,) = resolve_file(f"{LIBRARY}:sample_two").found
    assert found.site == Site(0, "libsample.so:sample_two", "sample_two", 0, 0x4F0, "", LIBRARY, 0, 13)
    assert (found.address, found.size) == (0x4F0, 13)


def test_offset_is_kept_apart():
    (found,) = resolve_file(f"{LIBRARY}:sample_two+0x4").found
    assert (found.site.address, found.site.offset, found.site.name) == (0x4F0, 4, "libsample.so:sample_two+0x4")
    with pytest.raises(UnprobeableError, match="has only 0xd bytes"):
        resolve_file(f"{LIBRARY}:sample_two+13")


def test_file_offset_is_taken_where_it_is_code():
    program = str(GOLDEN / "sample-throw")
    (found,) = resolve_file(f"{program}:0x148").found
    assert (found.site.address, found.address) == (0x148, 0x400148)
    with pytest.raises(UnprobeableError, match="no code"):
        resolve_file(f"{program}:0xffffff")


def test_ambiguous_function_is_told_apart_by_offset():
    with pytest.raises(AmbiguousSymbolError) as refused:
        resolve_file(f"{LIBRARY}:helper")
    assert refused.value.candidates == ("libsample.so:0x47f", "libsample.so:0x4ec")


def test_glob_takes_all_but_ifuncs_that_nothing_tells_about():
    resolution = resolve_file(f"{LIBRARY}:sample_*")
    assert [one.site.symbol for one in resolution.found].count("sample_chosen") == 0
    assert len(resolution.found) == 5
    assert resolution.skipped == (("chosen when the program starts (IFUNC)", 1),)
    with pytest.raises(SymbolNotFoundError, match="no function"):
        resolve_file(f"{LIBRARY}:nothing_*")


def test_ifunc_of_a_file_that_no_process_has_is_refused_by_reason():
    with pytest.raises(UnprobeableError, match="IFUNC"):
        resolve_file(f"{LIBRARY}:sample_chosen")


def test_ifunc_of_the_c_library_means_what_the_loader_chose():
    libc = ProcessObjects(os.getpid()).find("libc")[0]
    with ElfFile(libc.path) as elf:
        bias = load_bias(elf, libc.mappings)
    for resolution in (resolve_in_process("libc:strlen", os.getpid()), resolve_file("libc:strlen")):
        assert resolution.found[0].address + bias == address_of("strlen")


def test_unknown_function_offers_the_nearest():
    with pytest.raises(SymbolNotFoundError) as refused:
        resolve_file("libc:malok")
    assert refused.value.nearest == ("malloc",)


def test_name_without_an_object_is_looked_for_in_the_libraries_too():
    assert resolve_in_process("malloc", os.getpid()).found[0].object.name.startswith("libc.so")
    with pytest.raises(SymbolNotFoundError, match="and its libraries") as refused:
        resolve_in_process("mallocc", os.getpid())
    assert "malloc" in refused.value.nearest


def test_colons_of_a_namespace_name_no_object():
    with pytest.raises(SymbolNotFoundError, match="'std::nothing'"):
        resolve_in_process("std::nothing", os.getpid())


def test_file_without_symbols_says_how_to_go_on(tmp_path):
    data = bytearray(Path(LIBRARY).read_bytes())
    data[0x28:0x30] = bytes(8)  # no section headers
    (tmp_path / "bare").write_bytes(data)
    with pytest.raises(SymbolNotFoundError) as refused:
        resolve_file(f"{tmp_path}/bare:sample_two")
    assert "stripped" in refused.value.hint


def test_unknown_library_offers_the_nearest():
    with pytest.raises(SymbolNotFoundError, match="no program or library") as refused:
        resolve_file("libcc:malloc")
    assert "libc" in refused.value.nearest


@pytest.mark.parametrize("text", ["malloc", "", ":", "libc:", "libc:a b", "libc:malloc+", "libc:mal*+4", "libc:x\n"])
def test_misspelt_place_is_a_usage_error(text):
    with pytest.raises(UsageError):
        resolve_file(text)


# Objects by name.


@pytest.mark.parametrize("name", ["libc", "c", "libc.so.6", "lib[c]"])
def test_the_c_library_is_found_by_any_of_its_names(name):
    objects = MachineObjects().find(name)
    assert [one.name for one in objects] == ["libc.so.6"]
    assert Path(objects[0].path).samefile(ProcessObjects(os.getpid()).find(name)[0].path)


def test_program_is_found_in_path_and_by_path():
    assert MachineObjects().find("sh")[0].path == shutil.which("sh")
    assert MachineObjects(shutil.which("sh")).main().path == shutil.which("sh")
    assert MachineObjects().find(f"{GOLDEN}/libsample*.so")[0].path.endswith(".so")


def test_program_comes_with_the_libraries_it_is_linked_with():
    names = [one.name for one in MachineObjects(shutil.which("sh")).all()]
    assert names[0] == Path(shutil.which("sh")).resolve().name or names[0] == "sh"
    assert "libc.so.6" in names
    assert MachineObjects().all() == []


def test_library_is_found_in_the_process_by_any_path_that_leads_to_it(tmp_path):
    (tmp_path / "link").symlink_to(Path(LIBRARY).resolve().parent)
    other = tmp_path / "link" / Path(LIBRARY).name
    loaded = ctypes.CDLL(str(other))
    assert loaded
    found = ProcessObjects(os.getpid())
    assert found.find(str(other)) == found.find(str(Path(LIBRARY).resolve()))


def test_library_of_the_programs_own_directory_comes_before_that_of_the_machine(tmp_path):
    own = tmp_path / "own" / "libz.so.1"
    own.parent.mkdir()
    program = tmp_path / "program"
    for command in (
        ["-shared", "-Wl,-soname,libz.so.1", "-o", str(own), "-xc", "-"],
        ["-Wl,--no-as-needed", "-Wl,-rpath,$ORIGIN/own", "-o", str(program), "-xc", "-", "-xnone", str(own)],
    ):
        subprocess.run(["gcc", *command], input=b"int main(void) { return 0; }", check=True)
    assert Path(MachineObjects(str(program)).find("libz")[0].path).samefile(own)
    assert not Path(MachineObjects(str(program)).find("libc")[0].path).samefile(own)


def test_program_of_a_script_is_its_interpreter(tmp_path):
    script = tmp_path / "script"
    for line, program in (("#!/bin/sh -e", "/bin/sh"), ("#!/usr/bin/env -S sh -e", shutil.which("sh"))):
        script.write_text(f"{line}\n:\n")
        assert MachineObjects(str(script)).main().path == program


def test_program_comes_before_a_library_that_only_begins_alike(tmp_path, monkeypatch):
    program = tmp_path / "crypto"
    program.write_bytes(Path(LIBRARY).read_bytes())
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert MachineObjects().find("crypto")[0].path == str(program)
    assert MachineObjects("crypto").main().path == str(program)


def test_program_that_is_not_there_is_refused():
    with pytest.raises(SymbolNotFoundError):
        MachineObjects("no-such-program").main()


def test_object_of_a_process_is_found_by_the_path_that_opens_it():
    libc = ProcessObjects(os.getpid()).find("libc")[0]
    assert ProcessObjects(os.getpid()).find(libc.path) == [libc]


def test_short_names_drop_versions():
    names = ("libc.so.6", "libfoo-1.2.so", "libpython3.11.so.1.0", "bash", "libstdc++.so.6")
    assert [short_name(name) for name in names] == ["libc", "libfoo", "libpython3.11", "bash", "libstdc++"]


def test_program_of_a_process_is_its_main_object():
    main = ProcessObjects(os.getpid()).main()
    assert Path(main.path).samefile("/proc/self/exe")


def test_library_that_a_process_lacks_is_not_found():
    with pytest.raises(SymbolNotFoundError, match=f"process {os.getpid()}"):
        ProcessObjects(os.getpid()).find("libnotthere")


def test_process_that_is_gone_is_a_target_error():
    with pytest.raises(TargetError, match="process 4194305"):
        ProcessObjects(4194305)


# The loader's cache.


def test_cache_of_the_loader_names_existing_files():
    known = load_ldcache()
    assert dict(reversed(known))["libc.so.6"]
    assert all(path.startswith("/") for _, path in known)
    assert load_ldcache("/nothing") == []


@given(st.binary(max_size=200), st.integers(0, 4000))
def test_scribbled_cache_gives_an_error_or_an_answer(junk, at):
    data = bytearray(CACHE)
    data[at : at + len(junk)] = junk
    with contextlib.suppress(FormatError):
        list(parse_ldcache(bytes(data)))


CACHE = Path("/etc/ld.so.cache").read_bytes()


# /proc/PID/maps.


def test_maps_are_parsed_with_deleted_files_and_odd_names():
    text = (
        b"55d0c0000000-55d0c0001000 r-xp 00002000 fe:00 26723   /usr/bin/with space\\012 x (deleted)\n"
        b"7ffe00000000-7ffe00021000 rw-p 00000000 00:00 0                          [stack]\n"
        b"garbage\n"
        b"7ffff0000000-7ffff0001000 rw-p 00000000 00:00 0 \n"
    )
    first, stack, anonymous = parse_maps(text)
    expected = Mapping(
        0x55D0C0000000, 0x55D0C0001000, "r-xp", 0x2000, "/usr/bin/with space\n x", "fe:00", 26723, deleted=True
    )
    assert first == expected
    assert first.is_code
    assert (stack.path, stack.is_code, anonymous.path) == ("[stack]", False, "")


def test_bias_takes_a_symbol_to_its_place_in_memory():
    libc = ProcessObjects(os.getpid()).find("libc")[0]
    (malloc,) = resolve_in_process("libc:malloc", os.getpid()).found
    with ElfFile(libc.path) as elf:
        assert load_bias(elf, libc.mappings) + malloc.address == address_of("malloc")
        assert load_bias(elf, []) is None


# Frames.


def test_addresses_of_a_process_are_named():
    names = name_user_frames([address_of("malloc") + 2, 5], os.getpid())
    assert names[0].startswith(("malloc+0x2 (", "__libc_malloc+0x2 ("))
    assert names[1] == "0x5"


def test_special_memory_is_named_by_its_mapping():
    vdso = next(m for m in load_maps(os.getpid()) if m.path == "[vdso]")
    with UserFrames(os.getpid()) as frames:
        assert frames.name(vdso.start + 0x10) == f"{vdso.start + 0x10:#x} ([vdso])"


def test_names_outlive_the_process():
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), 19)
        os._exit(0)
    os.waitpid(child, os.WUNTRACED)
    with UserFrames(child) as frames:
        known = frames.name(address_of("malloc"))
        os.kill(child, 9)
        os.waitpid(child, 0)
        assert frames.name(address_of("malloc")) == known
        assert "malloc+0x1" in frames.name(address_of("malloc") + 1)
        assert frames.name(5) == "0x5"


def test_compiled_functions_are_named_by_their_perf_map():
    compiled = PerfMap(b"1000 20 old name\n1000 20 py::f:/x.py\nzzz\n2000 10 g\n")
    assert compiled.name(0x1004) == "py::f:/x.py+0x4 (compiled)"
    assert compiled.name(0x1020) == ""
    assert compiled.name(0x1) == ""


@given(st.text(max_size=40))
def test_any_spelling_gives_an_error_or_an_answer(text):
    with contextlib.suppress(KprobesError):
        resolve_file(f"{LIBRARY}:{text}")
