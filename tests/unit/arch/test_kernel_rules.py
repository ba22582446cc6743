"""The kernel's rules for kprobes, on bytes."""

import pytest

from kprobes.arch.x86_64.decode import decode
from kprobes.arch.x86_64.kernel_rules import KernelCode, copied, emulated, unboostable, unsupported, why_no_jump

START = 0xFFFFFFFF81000000
NOPS = b"\x90" * 16


def code_of(raw: str, **facts) -> KernelCode:
    return KernelCode(START, bytes.fromhex(raw) + NOPS, **facts)


def first(code: KernelCode):
    return code.sweep()[0]


def why(raw: str, **facts) -> str:
    code = code_of(raw, **facts)
    return why_no_jump(code, START, code.sweep())


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ("e8 00 00 00 00", "call"),  # call +0
        ("74 10", "flags"),  # je
        ("0f 84 10 00 00 00", "flags"),
        ("e2 10", "rcx"),  # loop
        ("ff e0", "register"),  # jmp rax
        ("c3", "returns"),
        ("fa", "interrupt flag"),  # cli
        ("48 89 e5", ""),  # mov rbp, rsp
    ],
)
def test_what_leaves_a_copy_is_emulated(raw, told):
    said = emulated(first(code_of(raw)))
    assert told in said
    assert bool(said) == bool(told)


@pytest.mark.parametrize(
    ("raw", "release", "error"),
    [
        ("cc", (6, 1), "EINVAL"),  # int3
        ("cc", (6, 12), "EILSEQ"),
        ("0f 0b", (6, 1), ""),  # ud2
        ("0f 0b", (6, 12), "EILSEQ"),
        ("8e d0", (6, 1), "EINVAL"),  # mov ss, eax
        ("8e d8", (6, 1), ""),  # mov ds, eax
        ("48 cf", (6, 1), "EOPNOTSUPP"),  # iretq
        ("48 cf", (5, 10), ""),
        ("ff 20", (6, 1), "EOPNOTSUPP"),  # jmp [rax]
        ("ff e0", (6, 1), ""),  # jmp rax
        ("0f 01 c1", (6, 1), "EOPNOTSUPP"),  # vmcall
    ],
)
def test_what_is_refused_depends_on_the_release(raw, release, error):
    code = code_of(raw, release=release)
    assert unsupported(first(code), code)[1] == error


@pytest.mark.parametrize(
    ("raw", "release", "boosted"),
    [
        ("48 89 e5", (6, 1), True),
        ("48 c1 e2 20", (6, 1), False),  # shl rdx, 32
        ("48 c1 e2 20", (6, 12), True),
        ("48 f7 f5", (6, 12), True),  # div rbp
        ("e8 00 00 00 00", (6, 12), False),
        ("67 8b 00", (6, 12), False),  # mov eax, [eax]
        ("0f b6 c0", (6, 1), True),  # movzx
        ("0f a2", (6, 1), False),  # cpuid
        ("0f 38 f0 00", (6, 12), False),  # movbe
    ],
)
def test_what_is_boosted_depends_on_the_release(raw, release, boosted):
    code = code_of(raw, release=release)
    assert (unboostable(first(code), code) == "") == boosted


def test_each_rule_of_the_jump_optimisation_is_told():
    assert why("55 48 89 e5 90") == ""  # push rbp; mov rbp, rsp; nop
    assert "bytes are left" in why_no_jump(KernelCode(START, b"\x55\xc3"), START, [])
    assert "entry code" in why("55 48 89 e5 90", entry_text=True)
    assert "exception table" in why("55 48 89 e5 90", exceptions=frozenset({START + 1}))
    assert "rewrites" in why("55 48 89 e5 90", reserved={START + 4: "a static call"})
    assert "can't run in the detour" in why("55 e8 00 00 00 00")
    assert "jumps into the bytes" in why("55 48 89 e5 90 eb fa")  # back to +1
    assert "jumps indirectly" in why("55 48 89 e5 90 ff e0")
    assert why("55 48 89 e5 90 ff e0", thunks=range(1, 2)) == ""  # retpolines: no jump tables
    assert "by a thunk" in why("55 48 89 e5 90 eb 02", release=(6, 1), thunks=range(START + 9, START + 10))


def test_a_copy_keeps_what_it_refers_to_also_across_zero():
    (item,) = decode(bytes.fromhex("65 48 8b 05 f0 ff ff 7e"), START)  # mov rax, gs:[small]
    moved = copied(item, START + 0x3F000000)
    (again,) = decode(moved, START + 0x3F000000)
    assert again.data == item.data
    assert copied(first(code_of("48 89 e5")), 0) == bytes.fromhex("4889e5")
