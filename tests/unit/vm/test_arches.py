"""Guests of another architecture: how their kernels are called, what they are made of."""

import struct
import sys

import pytest

from kprobes.engines.vm import userland
from kprobes.engines.vm.arches import AARCH64, ARCHES, X86_64, guest_arch, kernel_name, split_name
from kprobes.engines.vm.arm64image import release_of
from kprobes.engines.vm.command import GuestShape, Memory, kernel_words, machine_command
from kprobes.engines.vm.interpreter import running_interpreter, shared_libraries
from kprobes.engines.vm.kernels import FOREIGN_NAMES, KernelImage
from kprobes.engines.vm.userland import Userland, needed
from kprobes.errors import FormatError, TargetError, UsageError


@pytest.mark.parametrize("spelling", ["arm64", "aarch64", "AArch64"])
def test_both_names_of_the_architecture_are_understood(spelling):
    assert guest_arch(spelling) is AARCH64
    assert kernel_name("6.12", spelling) == "6.12-arm64"


@pytest.mark.parametrize("spelling", ["", "x86_64", "amd64"])
def test_a_kernel_of_the_hosts_architecture_is_called_by_its_version(spelling):
    assert kernel_name("5.10", spelling) == "5.10"


def test_a_name_tells_its_architecture_and_may_be_said_twice():
    assert split_name("6.12-arm64") == ("6.12", AARCH64)
    assert split_name("6.12") == ("6.12", X86_64)
    assert kernel_name("6.12-arm64", "arm64") == "6.12-arm64"
    assert [split_name(name)[1] for name in FOREIGN_NAMES] == [AARCH64] * len(AARCH64.versions)


@pytest.mark.parametrize("name", ["5.10", "/boot/vmlinuz", "6.12-amd64"])
def test_what_there_is_no_arm64_kernel_of_is_refused_with_those_there_are(name):
    with pytest.raises(UsageError, match="arm64") as caught:
        kernel_name(name, "arm64")
    assert "6.12" in caught.value.hint


def test_a_name_that_tells_another_architecture_is_refused():
    with pytest.raises(UsageError, match="is no kernel for amd64"):
        kernel_name("6.12-arm64", "x86_64")


def test_an_architecture_without_guests_is_refused():
    with pytest.raises(UsageError, match="riscv64"):
        kernel_name("6.12", "riscv64")


@pytest.mark.parametrize("arch", ARCHES.values(), ids=ARCHES)
def test_the_command_is_that_of_the_architecture(arch, tmp_path):
    kernel = KernelImage("k", "6.12.1", "/boot/k", "", "key", "", arch.name)
    words = machine_command(kernel, tmp_path / "initramfs", GuestShape(), Memory(tmp_path / "memory", shared=True))
    assert words[0] == arch.program
    assert words[words.index("-append") + 1] == kernel_words(arch)
    assert words[words.index("-machine") + 1].startswith(arch.machine.split(",")[0])


def image(banner=b"Linux version 6.12.1-arm64 (someone@somewhere) #1 SMP\n", magic=b"ARM\x64"):
    return bytes(56) + magic + bytes(100) + b"Linux version %s\n" + bytes(3) + banner


def test_the_release_is_that_of_the_banner():
    assert release_of(image()) == "6.12.1-arm64"


@pytest.mark.parametrize("broken", [b"", image(magic=b"MZ\0\0"), image(banner=b""), b"\x7fELF" + bytes(200)])
def test_what_is_no_arm64_image_is_refused(broken):
    with pytest.raises(FormatError, match="not an arm64 kernel"):
        release_of(broken)


# Libraries.


def elf(*names):
    """An ELF file that asks for the libraries *names*: one segment for all, and the dynamic section."""
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in names)
    at = [strings.index(b"\0" + name.encode() + b"\0") + 1 for name in names]
    dynamic = b"".join(struct.pack("<qQ", 1, offset) for offset in at)
    start = 64 + 2 * 56
    address = 0x10000
    dynamic += struct.pack("<qQ", 5, address + start + len(dynamic) + 32) + struct.pack("<qQ", 0, 0)
    size = start + len(dynamic) + len(strings)
    head = b"\x7fELF\x02\x01" + bytes(26) + struct.pack("<Q", 64) + bytes(14) + struct.pack("<HH", 56, 2) + bytes(6)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, address, address, size, size, 4096)
    where = struct.pack("<IIQQQQQQ", 2, 6, start, address + start, address + start, len(dynamic), len(dynamic), 8)
    return head + load + where + dynamic + strings


def test_the_libraries_of_a_file_are_read_from_it():
    assert needed(elf("libc.so.6", "libz.so.1")) == ["libc.so.6", "libz.so.1"]
    assert needed(elf()) == []
    assert needed(b"#!/bin/sh\n") == []


def test_the_libraries_of_a_real_program_are_those_that_its_loader_finds():
    program = running_interpreter().executable
    found = needed(program.read_bytes())
    assert "libc.so.6" in found
    assert set(found) <= set(shared_libraries([program]))


@pytest.fixture
def unpacked(tmp_path):
    """A userland as packages have it, with a Python of another version than any that runs this."""
    files = {
        "usr/bin/python3.99": elf("libc.so.6"),
        "bin/busybox": b"busybox",
        "usr/lib/python3.99/os.py": b"",
        "usr/lib/python3.99/json/__init__.py": b"",
        "usr/lib/python3.99/test/regrtest.py": b"",
        "usr/lib/python3.99/lib-dynload/_ctypes.cpython-399-aarch64-linux-gnu.so": elf("libffi.so.8"),
        "usr/lib/python3.99/lib-dynload/_ssl.cpython-399-aarch64-linux-gnu.so": elf("libssl.so.3"),
        "lib/aarch64-linux-gnu/libc.so.6": elf("ld-linux-aarch64.so.1"),
        "lib/aarch64-linux-gnu/ld-linux-aarch64.so.1": elf(),
        "usr/lib/aarch64-linux-gnu/libffi.so.8": elf("libc.so.6"),
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return Userland(str(tmp_path), "python3.99", "aarch64")


def test_all_libraries_are_followed_and_one_that_is_missing_is_named(unpacked):
    extension = next(unpacked.library.glob("lib-dynload/_ctypes*"))
    found = unpacked.libraries([unpacked.executable, extension])
    assert set(found) == {"libc.so.6", "libffi.so.8", "ld-linux-aarch64.so.1"}
    with pytest.raises(TargetError, match=r"no libssl\.so\.3"):
        unpacked.libraries(list(unpacked.library.glob("lib-dynload/_ssl*")))


def test_an_extension_that_can_not_be_loaded_is_known(unpacked):
    can = {path.name[:4]: unpacked.can_load(path) for path in unpacked.library.glob("lib-dynload/*.so")}
    assert can == {"_cty": True, "_ssl": False}


def test_all_of_another_versions_library_goes_in_but_for_what_no_guest_needs(unpacked):
    assert not unpacked.is_ours
    assert {name for name, _ in unpacked.modules({"os"})} == {"os", "json", "_ctypes", "_ssl"}
    assert unpacked.busybox.name == "busybox"


def test_of_the_same_version_only_what_is_imported_goes_in(unpacked):
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    unpacked.library.rename(unpacked.library.with_name(version))
    same = Userland(unpacked.directory, version, unpacked.arch)
    assert same.is_ours
    assert {name for name, _ in same.modules({"os", "_ctypes", "json", "sys", "posix"})} == {"os", "json", "_ctypes"}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"layout": 0, "directory": "/", "python": "python3", "arch": "x"}'])
def test_a_description_that_makes_no_sense_is_no_userland(tmp_path, text):
    (tmp_path / "userland.json").write_text(text)
    assert userland._read(tmp_path) is None
