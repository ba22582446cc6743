"""Definitions by our own code, beside the kernel's own events of the same definitions: the same values, hit for hit."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from definition_writer import REGISTERS
from fetch_truth import both
from guest_harness import Guest
from seeds import SEED

from kprobes.engines.vm.kernels import KERNEL_NAMES
from kprobes.grammar.facts import dialect
from kprobes.symbols.elf import ElfFile
from kprobes.symbols.elf_symbols import ElfSymbols

OPEN = ("openat", "/etc/passwd", "3")
WRITE = ("write", "100", "3")
PLAIN = [
    "p:{}/one do_sys_openat2 dfd=%di:s32 name=+0(%si):string uname=+u0(%si):ustring how=+0(%dx):x64[3] s0=$stack0 "
    's1=$stack1:x32 st=$stack c=$comm ip=%ip:symbol b=%di:b4@4/32 i=\\5:s8 t=\\"lit" j=@linux_banner:x64 fl=%flags '
    "a=%di:u8 m=%di:x16 f=+0(%di):string p=+0(%sp):string[2] l=%di:s8",
    "p:{}/two do_sys_openat2 $arg1:s32 a2=+0($arg2):string c3=+1($arg2):x8[3] one=+0(%si):x8[1] arg7=$arg7 "
    "ret=$stack0:symbol none=$stack2040 bf=+0(%dx):b7@15/64 b2=+0(%dx):b3@1/16 m=@linux_banner+6:u32",
    "r:{}/back do_sys_openat2 ret=$retval:s32 $stack0 $stack ip=%ip:symbol e=$retval:s8",
]
TYPED = [
    "p:{}/all do_sys_openat2 $arg*",
    "p:{}/typed vfs_open fl=file->f_flags name=path->dentry->d_name.name:string file n=path->dentry",
    "p:{}/fields vfs_open file->f_pos d=path->dentry->d_parent->d_name.name:string n=$arg2:%pD m=file->f_mode",
    "r:{}/typedback do_sys_openat2 $retval fn=+0($arg2):string how->flags dfd",
]


def equal(guest: Guest, definitions: list[str], *workload: str, least: int = 1) -> None:
    theirs, ours = both(guest, definitions, *workload)
    assert ours == theirs
    assert len(ours) >= least


@pytest.mark.parametrize("kernel", KERNEL_NAMES)
def test_registers_stack_memory_strings_and_arrays_are_the_kernels(
    kernel: str, guest_of: Callable[[str], Guest]
) -> None:
    named = ["r:{}/named do_sys_openat2 where=$stack0:symstr"] if dialect(kernel).symstr else []
    equal(guest_of(kernel), [*PLAIN, *named], *OPEN, least=9)


@pytest.mark.parametrize("kernel", KERNEL_NAMES)
def test_generated_definitions_are_the_kernels(kernel: str, guest_of: Callable[[str], Guest]) -> None:
    dice = Random(SEED)
    equal(guest_of(kernel), [written(dice, f"e{number}") for number in range(8)], *OPEN, least=24)


@pytest.mark.parametrize("kernel", [name for name in KERNEL_NAMES if dialect(name).btf])
def test_parameters_fields_and_dentries_are_the_kernels(kernel: str, guest_of: Callable[[str], Guest]) -> None:
    equal(guest_of(kernel), TYPED, *OPEN, least=12)


def test_bits_of_structures_are_the_kernels(newest: Guest) -> None:
    bits = "a=sk->__sk_common.skc_reuse b=sk->__sk_common.skc_ipv6only y=sk->sk_type f=sk->__sk_common.skc_family"
    equal(newest, [f"p:{{}}/bits tcp_connect {bits}"], "connect", "1", "1")


FILTERS = {
    "a": 'name ~ "/e?c/*ss[a-w]d" && !(name ~ "*q*d")',
    "b": 'fd == -100 && name ~ "/etc/*" && size & 100',
    "c": '!(fd < 0) || comm == "calls"',
    "end": 'comm ~ "*lls"',
    "no_end": 'comm ~ "!*lls" && comm ~ "c?lls"',
    "d": 'name == "/etc/passwd" && (fd > 5 || big >= 0x8000)',
    "none": 'name ~ "*nothing" || size == 101',
}


def test_a_filter_passes_the_same_hits(newest: Guest) -> None:
    fetched = "do_sys_openat2 fd=%di:s32 name=+0(%si):string size=\\100:u8 big=+0(%dx)"
    theirs, ours = both(newest, [f"p:{{}}/{name} {fetched}" for name in FILTERS], *OPEN, filters=FILTERS)
    assert ours == theirs
    assert {hit.event for hit in ours} == {"a", "b", "c", "d", "no_end"}


def test_programs_in_the_guest_are_probed_by_definitions_too(newest: Guest) -> None:
    with ElfFile(str(newest.programs / "calls")) as elf:
        (symbol,) = {one.address: one for one in ElfSymbols(elf).lookup("write")}.values()
        at = elf.offset_of(symbol.address)
    lines = [
        f"p:{{}}/entry /root/calls:{at:#x} fd=%di:s32 size=%dx b=+0(%si):string[1] c=+0(%ip):x8[5] %ip $stack0 $comm "
        f"text=+0(+8($stack)):string same=@+{at:#x}:x32",
        f"r:{{}}/left /root/calls:{at:#x} $retval %ip %sp",
    ]
    equal(newest, lines, *WRITE, least=6)


@pytest.mark.parametrize("kernel", [KERNEL_NAMES[0], KERNEL_NAMES[-1]])
def test_expressions_stacks_and_times_beside_definitions(kernel: str, guest_of: Callable[[str], Guest]) -> None:
    guest = guest_of(kernel)

    def rows(command: str, *words: str) -> list[dict[str, Any]]:
        done = guest.command(
            command, "--format", "json", *words, "--", "dd", "if=/dev/zero", "of=/dev/null", "count=20"
        )
        return [json.loads(line) for line in done.errors.splitlines() if line.startswith("{")]

    line = "p:out vfs_write size=%dx text=+0(%si):x8[2]"
    ours = 'comm == "dd" and size >> 9 == 1 and text[1] == 0'
    found = rows("trace", line, "--filter", "size > 100", "--if", ours, "--print", "size * 2,text,uid", "--stack")
    assert [row["args"] for row in found] == 20 * [{"size * 2": 1024, "text": [0, 0], "uid": 0}]
    assert {row["event"] for row in found} == {"out"}
    assert all(any(frame.startswith("ksys_write") for frame in row["stack"]) for row in found)
    (counted,) = rows("count", line, "--filter", 'size == 512 && comm == "dd"')
    assert (counted["probe"], counted["hits"]) == ("out", 20)
    spent = rows("latency", "r:back vfs_write got=$retval:s64", "--by", "comm", "--if", "got == 512 == retval")
    assert [(row["map"], row["key"], samples(row)) for row in spent] == [("back", "dd", 20)]
    sizes = rows("hist", line, "size // 2", "--by", "text[0]", "--filter", 'comm == "dd" && size == 512')
    assert [(row["key"], samples(row), row["buckets"][0][0]) for row in sizes] == [(0, 20, 256)]


def samples(row: dict[str, Any]) -> int:
    return sum(bucket[2] for bucket in row["buckets"])


def written(dice: Random, name: str) -> str:
    """Return a definition with arguments that can't be read only where they say so."""
    found = []
    for number in range(dice.randrange(1, 8)):
        kind = dice.choice(["u", "s", "x"]) + dice.choice(["8", "16", "32", "64"])
        if dice.random() < 0.3:
            kind = f"b{dice.randrange(1, 9)}@{dice.randrange(0, 24)}/{dice.choice(['32', '64'])}"
        term = _term(dice)
        array = dice.choice(["", "[1]", "[3]"]) if term[0] == "+" else ""
        found.append(f"a{number}={term}:{kind}{array}")
    return f"p:{{}}/{name} do_sys_openat2 {' '.join(found)} +0({_pointer(dice)}):string"


def _term(dice: Random) -> str:
    plain = [f"%{dice.choice(REGISTERS)}", f"$stack{dice.randrange(8)}", f"$arg{dice.randrange(1, 4)}"]
    return dice.choice([*plain, *[f"+{dice.randrange(0, 17)}({_pointer(dice)})"] * 4])


def _pointer(dice: Random) -> str:
    return dice.choice(["%si", "%dx", "$stack", "%sp", "$arg2", "%ip"])
