"""What the arguments of definitions fetch: widths, signs, pointers, strings, arrays, and what can't be read."""

from __future__ import annotations

import struct

import pytest

from fetch.hits import Hit, compiled, fetched
from kprobes.compiler.ir.usage import uses_registers
from kprobes.errors import DefinitionError, UnsupportedError, UsageError
from kprobes.grammar.events import parse
from kprobes.grammar.glob import matches_pattern
from kprobes.model.definition import Definition, Memory
from kprobes.model.fetched import event_layout

TEXT, DATA, WORDS, STACK = 0x1000, 0xFFFF800000001000, 0xFFFF800000002000, 0xFFFF800000004000
HIT = Hit(
    {"di": (1 << 64) - 100, "si": TEXT, "dx": DATA, "cx": WORDS, "ax": 0x1234, "sp": STACK},
    {
        ("user", TEXT): b"/etc/passwd".ljust(300, b"\0"),
        ("kernel", DATA): bytes(range(0x80, 0xC0)),
        ("kernel", WORDS): struct.pack("<QQQQ", TEXT, 0x10, DATA, WORDS + 8),
        ("kernel", STACK): struct.pack("<8Q", *range(70, 78)),
        ("kernel", 0xFFFFFFFF81000100): struct.pack("<Q", 4_294_937_296),
    },
)


def values(text: str, hit: Hit = HIT, **options: object) -> list[object]:
    found = fetched(compiled(f"p:mine vfs_read {text}", **options), hit)
    assert found is not None
    return list(found.values())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("%di:s32", -100),
        ("%di:u8", 156),
        ("%di", (1 << 64) - 100),
        ("%di:x16", 0xFF9C),
        ("%ax:b8@4/16", 0x23),
        ("%ax:b4@8/64", 2),
        ("$stack", STACK),
        ("$stack3", 73),
        ("$stack2048", 0),
        ("$arg1:s64", -100),
        ("$arg8:u64", 72),
        ("+0(%dx):u8", 0x80),
        ("+0(%dx):s8", -128),
        ("+1(%dx):x32", 0x84838281),
        ("-1(+0x10(%cx)):u8", 0),
        ("+2(+0x10(%cx)):u16", 0x8382),
        ("+0(%dx):b4@4/8", 8),
        ("+0(%dx):b1@15/16", 1),
        ("+8(+0x18(%cx)):x64", 0xFFFF800000001000),
        ("@jiffies:u32", 4_294_937_296),
        ("@jiffies+1:u8", 0x8A),
        ("\\-5:s16", -5),
        ("\\0x123456789:u32", 0x23456789),
        ("+0(%si):string", "/etc/passwd"),
        ("+u0(%si):ustring", "/etc/passwd"),
        ("+5(+0(%cx)):string", "passwd"),
        ("+0(%si):char", 0x2F),
        ("$comm", "cat"),
        ('\\"some"', "some"),
        ("+0(%di):string", "(fault)"),
        ("+0(+0(%di)):string", "(fault)"),
        ("+0(%di):u64", 0),
        ("%ip:symbol", 0xFFFFFFFF81234568),
        ("%ip:symstr", 0xFFFFFFFF81234568),
    ],
)
def test_a_term_has_the_width_and_sign_of_its_type(text: str, value: object) -> None:
    assert values(text) == [value]


def test_arrays_are_read_element_by_element() -> None:
    assert values("+0(%dx):u16[3]") == [0x8180, 0x8382, 0x8584]
    assert values("+0(%dx):b4@4/8[2]") == [8, 8]
    assert values("+60(%dx):u16[3]") == [0xBDBC, 0xBFBE, 0]
    assert values("+0(+0(%di)):u16[3]") == [0, 0, 0]
    assert values("+0(%dx):x8[1]") == [0x80]


def test_an_array_of_strings_goes_by_pointers_of_which_each_may_lead_nowhere() -> None:
    assert values("+0(%cx):string[2]") == ["/etc/passwd", "(fault)"]
    assert values("+0(%cx):string[1]") == ["/etc/passwd"]
    assert values("+16(%cx):string[4]")[2:] == ["(fault)", "(fault)"], "behind the end of what can be read"


def test_strings_are_cut_to_the_room_that_they_have() -> None:
    line = "p:mine vfs_read +0(%si):string"
    found = parse(line)
    assert isinstance(found, Definition)
    assert event_layout(found, strings=16).fields[-1].size == 16
    assert fetched(compiled(line, strings=16), Hit({"si": 1}, {("user", 1): b"x" * 99}))["arg1"] == "x" * 15


def test_a_read_that_fails_behind_another_leaves_nothing_of_what_it_found() -> None:
    low = Hit({"di": 1 << 60}, {("user", 8): struct.pack("<Q", 77)})
    assert values("+8(+0(%di)):u64", low) == [0], "address 8 can be read, and is not where the pointer led"
    assert values("+8(+0(%di)):string", low) == ["(fault)"]


def test_a_return_has_its_result_and_the_arguments_of_the_entry() -> None:
    handler = compiled("r:back vfs_read $retval:s32 a=$arg1:s32 b=+0($arg2):string sp=$stack")
    hit = Hit({**HIT.registers}, HIT.memory, (1 << 64) - 2, {"di": 7, "si": 7, "sp": STACK + 8})
    assert fetched(handler, hit) == {"arg1": -2, "a": -100, "b": "/etc/passwd", "sp": STACK + 8}
    assert [one.name for one in handler.call_fields] == ["arg1", "arg2"]


def test_a_return_that_asks_nothing_of_the_entry_has_one_part() -> None:
    assert compiled("r:back vfs_read $retval").entry is None
    asked = compiled("r:back vfs_read $retval", returns_tell=False)
    assert [one.name for one in asked.call_fields] == ["func", "ret"]


def test_every_definition_goes_by_registers() -> None:
    assert uses_registers(compiled("p:mine vfs_read %di"))


def test_what_depends_on_types_that_nobody_knows_is_told() -> None:
    for text in ("count", "$arg*", "f=file->f_pos"):
        with pytest.raises(UnsupportedError, match="no types are known"):
            compiled(f"p:mine vfs_read {text}")
    with pytest.raises(UsageError, match="_pid"):
        compiled("p:mine vfs_read _pid=%di")


def test_a_string_of_a_pointer_parameter_follows_it() -> None:
    found = parse("p vfs_read a=+0(%di):string")
    assert isinstance(found, Definition)
    assert isinstance(found.arguments[0].term, Memory)


FILTERS = [
    ("fd == -100", True),
    ("fd != -100", False),
    ("fd < 0 && fd >= -100", True),
    ("fd > 0 || name == /etc/passwd", None),
    ('fd > 0 || name == "/etc/passwd"', True),
    ('!(name ~ "/etc/*")', False),
    ('name ~ "*passwd"', True),
    ('name ~ "*tc/pa*"', True),
    ('name ~ "!*tc/pa*"', False),
    ('name != "x"', True),
    ('name == "/etc/passw"', False),
    ('comm == "cat" && cpu == 1 && common_pid == 71', True),
    ("small & 4", True),
    ("small & 2", False),
    ("small > 200", False),
    ("__probe_ip == 0xffffffff81234567", True),
    ("big > 0x7fffffffffffffff", True),
    ('fd == 1 || (small == 156 && !(big == 1)) || comm ~ "dog*"', True),
]


@pytest.mark.parametrize(("condition", "passes"), FILTERS)
def test_a_filter_lets_pass_what_the_kernels_own_would(condition: str, passes: bool | None) -> None:
    line = "p:mine vfs_read fd=%di:s32 name=+0(%si):string small=%di:u8 big=%di late=+0(%di):string"
    if passes is None:
        with pytest.raises(DefinitionError):
            compiled(line, condition=condition)
        return
    found = fetched(compiled(line, condition=condition), HIT)
    assert (found is not None) == passes
    if found:
        assert list(found) == ["fd", "name", "small", "big", "late"]


LONG = "fifteen_ends_at"


@pytest.mark.parametrize("pattern", ["*at", "!*at", "*", "*t*", "c*t", f"*{LONG}", f"*{LONG}x", "*ends_at", "*een*"])
@pytest.mark.parametrize("comm", ["cat", LONG])
def test_the_end_of_a_tasks_name_is_compared_where_the_kernel_does(comm: str, pattern: str) -> None:
    handler = compiled("p:mine vfs_read name=$comm", condition=f'comm ~ "{pattern}"')
    wanted = matches_pattern(pattern, comm, 16)
    assert (fetched(handler, Hit(comm=comm.encode())) is not None) == wanted
    plain = compiled("p:mine vfs_read name=$comm", condition=f'name ~ "{pattern}"')
    assert (fetched(plain, Hit(comm=comm.encode())) is not None) == matches_pattern(pattern, comm)


@pytest.mark.parametrize(
    ("condition", "passes"),
    [("cpu == 156", True), ("cpu == 1", False), ("CPU == 1", True), ('comm == "/etc/passwd"', True),
     ('comm == "cat"', False), ('COMM == "cat" && comm ~ "/etc*" && CPU == 1', True)],
)  # fmt: skip
def test_an_argument_hides_what_every_event_has_by_its_name(condition: str, passes: bool) -> None:
    found = fetched(compiled("p:mine vfs_read cpu=%di:u8 comm=+0(%si):string", condition=condition), HIT)
    assert (found is not None) == passes


def test_an_array_that_hides_a_name_is_not_taken_for_what_it_hides() -> None:
    with pytest.raises(UnsupportedError, match="the field cpu can't be filtered by here"):
        compiled("p:mine vfs_read cpu=+0(%cx):u32[2]", condition="cpu == 1 && CPU == 1")


def test_many_strings_share_the_record_whatever_short_ones_are_beside_them() -> None:
    strings = " ".join(f"+{at}(%si):string" for at in range(40))
    short = " ".join(f'c{at}=$comm t{at}=\\"text"' for at in range(20))
    found = parse(f"p:mine vfs_read {strings} {short}", "7.2")
    assert isinstance(found, Definition)
    assert event_layout(found).size <= 8192


def test_what_only_the_kernel_can_filter_by_is_told() -> None:
    line = "p:mine vfs_read a=+0(%si):string s=%ip:symstr"
    for condition in ("common_flags == 1", 's == "vfs_read"'):
        with pytest.raises(UnsupportedError) as caught:
            compiled(line, condition=condition)
        assert "tracefs" in caught.value.hint
