"""Definitions by the rules of a kernel of another architecture."""

import json
import re
import sys
from errno import ERANGE
from pathlib import Path

import pytest
from recorded_world import replayed

from kprobes.errors import DefinitionError, UnsupportedError
from kprobes.grammar.events import parse
from kprobes.grammar.facts import dialect
from kprobes.model.definition import Register

sys.path.append(str(Path(__file__).parents[2] / "live/vm"))
from definition_truth import GuestFiles, parsed

GOLDEN = Path(__file__).parents[2] / "golden/grammar"


def read(line, arch, kernel="6.12", kind="kprobe"):
    return parse(line, dialect(kernel, arch), kind)


@pytest.mark.parametrize(
    ("arch", "name"),
    [("aarch64", "x0"), ("aarch64", "lr"), ("aarch64", "pstate"), ("i386", "es"), ("i386", "ax"), ("x86_64", "r15")],
)
def test_registers_have_the_names_of_their_architecture(arch, name):
    assert read(f"p vfs_read %{name}", arch).arguments[0].term == Register(name)


@pytest.mark.parametrize(
    ("arch", "name", "known"), [("aarch64", "di", "x30"), ("i386", "r8", "gs"), ("x86_64", "x0", "r15")]
)
def test_the_registers_of_another_architecture_are_refused_with_those_there_are(arch, name, known):
    with pytest.raises(DefinitionError, match="Invalid register name") as caught:
        read(f"p vfs_read %{name}", arch)
    assert known in caught.value.hint


@pytest.mark.parametrize(("arch", "word"), [("x86_64", "x64"), ("aarch64", "x64"), ("i386", "x32")])
def test_an_argument_without_a_type_is_a_word(arch, word):
    register = "x0" if arch == "aarch64" else "ax"
    assert read(f"p vfs_read %{register}", arch).arguments[0].type.name == word
    assert read(f"p vfs_read %{register}:symbol", arch).arguments[0].type.size == int(word[1:]) // 8


@pytest.mark.parametrize(
    "line",
    [
        "p vfs_read @0x100000000",
        "p vfs_read +0x80000000(%ax)",
        "p vfs_read -0x80000001(%ax)",
        "p vfs_read \\4294967296",
    ],
)
def test_a_number_of_i386_has_32_bits(line):
    with pytest.raises(DefinitionError) as caught:
        read(line, "i386")
    assert caught.value.errno == ERANGE
    assert read(line, "x86_64")


def test_the_largest_numbers_of_i386_are_taken():
    assert read("p vfs_read @0xffffffff +0x7fffffff(%ax) -0x80000000(%ax) \\4294967295", "i386")


def test_an_address_of_i386_is_listed_in_eight_digits():
    assert read("p 0xc0100000", "i386", "6.1").place.text == "0xc0100000"
    assert read("p 0xffff800080100000", "aarch64", "6.1").place.text == "0xffff800080100000"


def test_only_x86_64_has_an_entry_behind_the_first_instruction():
    assert read("r vfs_read+4 $retval", "x86_64")
    with pytest.raises(DefinitionError, match="must be an function entry"):
        read("r vfs_read+4 $retval", "aarch64")


def test_an_unknown_architecture_is_refused_with_the_known_ones():
    with pytest.raises(UnsupportedError, match="riscv64") as caught:
        dialect("6.1", "riscv64")
    assert "aarch64" in caught.value.hint


# What Debian's 6.1 for i386 said in an emulated machine: the lines with its registers, its answers, and of its symbols
# what the verdicts depend on. Addresses are masked.
CAPTURED = json.loads((GOLDEN / "6.1-i386.json").read_text())
ADDRESS = re.compile("(?<!:)0x[0-9a-f]{8}(?![0-9a-f])")


@pytest.mark.parametrize("kind", ["kprobe", "uprobe", "dynamic"])
def test_parser_says_what_a_kernel_of_i386_said(kind):
    world = replayed(CAPTURED["world"], GuestFiles(), typed=False)
    written = CAPTURED["written"][kind]
    assert sum(map(len, written)) >= 100
    for lines, real, ours in zip(
        written, CAPTURED[kind], parsed(dialect("6.1", "i386"), kind, world, written), strict=True
    ):
        told = [
            [one.errno, one.message, one.column]
            if one.errno
            else "\n".join(sorted(ADDRESS.sub("0xADDRESS", line) for line in one.listed))
            for one in ours
        ]
        assert told == real, lines
