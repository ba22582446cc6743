"""The rules that the kernel's own tests of kprobe and uprobe events hold it to, in our words.

A caret marks where that of the error log stands; it is no part of the definition.
"""

import pytest

from kprobes.errors import DefinitionError
from kprobes.grammar.events import Events, parse
from kprobes.grammar.facts import KERNELS
from kprobes.grammar.hints import HINTS
from kprobes.grammar.refusal import MESSAGES

LONG = "n" * 64
EVERYWHERE = [
    ("maxactive is for return probes", "p^7 vfs_read", "BAD_MAXACT_TYPE"),
    ("maxactive is a number", "r^7seven vfs_read", "BAD_MAXACT"),
    ("maxactive is not zero", "r^0 vfs_read", "BAD_MAXACT"),
    ("maxactive is 4096 at most", "r^4097 vfs_read", "MAXACT_TOO_BIG"),
    ("an offset is a number", "p ^some-thing", "BAD_PROBE_ADDR"),
    ("an offset is one number", "p ^some+64-64", "BAD_PROBE_ADDR"),
    ("an offset is not negative", "p ^some-8", "BAD_PROBE_ADDR"),
    ("a return probe is at an entry", "r ^vfs_read+10", "BAD_RETPROBE"),
    ("a return suffix is at an entry", "p ^vfs_read+10%return", "BAD_RETPROBE"),
    ("there is one suffix", "p vfs_read^%back", "BAD_ADDR_SUFFIX"),
    ("a group has a name", "p:^/one vfs_read", "NO_GROUP_NAME"),
    ("a group's name is not too long", f"p:^{LONG}/one vfs_read", "GROUP_TOO_LONG"),
    ("a group's name has no dot", "p:^mine.1/one vfs_read", "BAD_GROUP_NAME"),
    ("an event has a name", "p:^ vfs_read", "NO_EVENT_NAME"),
    ("an event's name is not too long", f"p:mine/^{LONG} vfs_read", "EVENT_TOO_LONG"),
    ("an event's name has no dot", "p:mine/^one.1 vfs_read", "BAD_EVENT_NAME"),
    ("an event's name has no digit first", "p:^1one vfs_read", "BAD_EVENT_NAME"),
    ("an entry has no return value", "p vfs_read ^$retval", "RETVAL_ON_PROBE"),
    ("a stack has an end", "p vfs_read ^$stack10000", "BAD_STACK_NUM"),
    ("a stack's word is a number", "p vfs_read ^$stackp", "BAD_VAR"),
    ("arguments have an end", "p vfs_read +0(^$arg10000)", "BAD_ARG_NUM"),
    ("variables are known", "p vfs_read ^$unknown", "BAD_VAR"),
    ("registers are known", "p vfs_read ^%unknown", "BAD_REG_NAME"),
    ("an address is a number", "p vfs_read ^@77seventy", "BAD_MEM_ADDR"),
    ("the kernel has no file offsets", "p vfs_read ^@+16", "FILE_ON_KPROBE"),
    ("an immediate is a number", "p vfs_read a=\\^x", "BAD_IMM"),
    ("an immediate string is closed", 'p vfs_read a=\\"text^', "IMMSTR_NO_CLOSE"),
    ("a dereference has a brace", "p vfs_read ^+0%si)", "DEREF_NEED_BRACE"),
    ("a dereference's offset is a number", "p vfs_read ^+8eight(%si)", "BAD_DEREF_OFFS"),
    ("a dereference has an offset", "p vfs_read ^+(%si)", "BAD_DEREF_OFFS"),
    ("a dereference is closed", "p vfs_read +0(+0(%si^)", "DEREF_OPEN_BRACE"),
    ("a name is no address", "p vfs_read +0(^$comm)", "COMM_CANT_DEREF"),
    ("terms are known", "p vfs_read ^&1", "BAD_FETCH_ARG"),
    ("an array is closed", "p vfs_read +0(@16):u8[9^", "ARRAY_NO_CLOSE"),
    ("an array is the end", "p vfs_read +0(@16):u8[9]^x", "BAD_ARRAY_SUFFIX"),
    ("an array's size is a number", "p vfs_read +0(@16):u8[^9x]", "BAD_ARRAY_NUM"),
    ("an array's size is not zero", "p vfs_read +0(@16):u8[^0]", "BAD_ARRAY_NUM"),
    ("an array has 64 elements at most", "p vfs_read +0(@16):u8[^65]", "ARRAY_TOO_BIG"),
    ("types are known", "p vfs_read @16:^what", "BAD_TYPE"),
    ("a type is one", "p vfs_read %ax:^:x16", "BAD_TYPE"),
    ("a string is in memory", "p vfs_read $stack0:^string", "BAD_STRING"),
    ("an array is in memory", "p vfs_read %ax:^u8[4]", "BAD_STRING"),
    ("a bit-field's offset is a number", "p vfs_read @16:^b4@four/16", "BAD_BITFIELD"),
    ("a bit-field fits", "p vfs_read @16:^b4@14/16", "BAD_BITFIELD"),
    ("an argument's name is not too long", f"p vfs_read ^{LONG[:33]}=@16", "ARG_NAME_TOO_LONG"),
    ("an argument has a name", "p vfs_read ^=@16", "NO_ARG_NAME"),
    ("an argument's name has no dot", "p vfs_read ^a.1=@16", "BAD_ARG_NAME"),
    ("an argument has one name", "p vfs_read a=^b=%ax", "BAD_FETCH_ARG"),
    ("an argument's name is its own", "p vfs_read a=@16 ^a=@24", "USED_ARG_NAME"),
    ("the kernel's names are its own", "p vfs_read ^common_pid=%ax", "USED_ARG_NAME"),
    ("an argument is not too long", f"p vfs_read ^{'+1234567(' * 7}%si{')' * 7}", "ARG_TOO_LONG"),
    ("an argument fetches something", "p vfs_read a=^", "NO_ARG_BODY"),
]
UPROBES = [
    ("an offset is a number", "p /bin/sh:^16x", "BAD_UPROBE_OFFS"),
    ("a counter is a number", "p /bin/sh:16(^1x)", "BAD_REFCNT"),
    ("a counter is closed", "p /bin/sh:16(16^", "REFCNT_OPEN_BRACE"),
    ("a counter is the end", "p /bin/sh:16(16)^x", "BAD_REFCNT_SUFFIX"),
    ("a suffix stands before a counter", "p /bin/sh:16(16)^%return", "BAD_REFCNT_SUFFIX"),
    ("there is one suffix", "p /bin/sh:16^%back", "BAD_ADDR_SUFFIX"),
    ("a file offset is a number", "p /bin/sh:16 ^@+1x", "BAD_FILE_OFFS"),
    ("a process has no kernel symbols", "p /bin/sh:16 ^@jiffies", "SYM_ON_UPROBE"),
]
SINCE_PARAMETERS = [
    ("all arguments have no name of their own", "p vfs_read all=^$arg*", "BAD_VAR"),
    ("all arguments are no term", "p vfs_read +0(^$arg*)", "BAD_VAR"),
    ("all arguments are written once", "p vfs_read $arg* ^$arg*", "DOUBLE_ARGS"),
    ("arguments are had at the entry", "p vfs_read+20 ^$arg*", "NOFENTRY_ARGS"),
    ("parameters are had at the entry", "p vfs_read+20 ^count", "NOSUP_BTFARG"),
    ("a comm is a string", "p vfs_read $comm:^x64", "NEED_STRING_TYPE"),
]


def refused(line, code, kernel, kind="kprobe"):
    with pytest.raises(DefinitionError) as caught:
        parse(line.replace("^", "", 1), kernel, kind)
    assert (caught.value.code, caught.value.column) == (code, line.index("^"))
    assert caught.value.hint


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("line", "code"), [rule[1:] for rule in EVERYWHERE], ids=[rule[0] for rule in EVERYWHERE])
def test_kprobe_rule(line, code, kernel):
    if "=^b=" in line and kernel in KERNELS[2:]:
        code = "NO_BTFARG"  # since a name there is a parameter
    refused(line, code, kernel)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("line", "code"), [rule[1:] for rule in UPROBES], ids=[rule[0] for rule in UPROBES])
def test_uprobe_rule(line, code, kernel):
    refused(line, code, kernel, "uprobe")


@pytest.mark.parametrize("kernel", KERNELS[2:])
@pytest.mark.parametrize(("line", "code"), [r[1:] for r in SINCE_PARAMETERS], ids=[r[0] for r in SINCE_PARAMETERS])
def test_rule_since_parameters_have_names(line, code, kernel):
    refused(line, code, kernel)


def test_too_deep_dereferences_are_refused():
    body = "+0(" * 14 + "@1" + ")" * 14
    assert parse(f"p vfs_read {body[3:-1]}") is not None
    with pytest.raises(DefinitionError) as caught:
        parse(f"p vfs_read {body}")
    assert caught.value.code == "TOO_MANY_OPS"


@pytest.mark.parametrize(
    "argument",
    [
        "%ax", "@jiffies", "@0xffffffff82000000", "@jiffies+10", "@jiffies-10", "$stack", "$stack0", "$comm",
        "$comm:string", "+0(%ax)", "-0(%ax)", "+10($stack)", "+0($stack1)", "+10(@jiffies-10)", "+0(+10(+20($stack)))",
        "name=%ax", "%ax:x16", "+0($stack):string", "$stack0:b4@4/32", "@jiffies:b8@4/32", "+u0(%si):ustring", "\\16",
        '\\"text"', "+0(%si):string[3]",
    ],
)  # fmt: skip
def test_good_argument_is_taken_by_every_kernel(argument):
    for kernel in KERNELS:
        found = parse(f"p vfs_read {argument}", kernel)
        assert found.text.endswith(argument)


def test_events_of_one_name_are_probes_of_one_event():
    events = Events("6.1")
    lines = ["p:mine/two kernel_clone", "p:mine/two do_exit"]
    assert all(events.check(line).ok for line in lines)
    assert list(events.listing()) == lines
    assert events.check("p:mine/two do_exit $stack").error.code == "DIFF_ARG_TYPE"
    assert events.check("r:mine/two do_exit").error.code == "DIFF_PROBE_TYPE"
    assert events.check("p:mine/two do_exit").error.code == "SAME_PROBE"
    assert events.check("-:mine/two kernel_clone").ok
    assert list(events.listing()) == lines[1:]
    assert events.check("p:mine/two kernel_clone").ok
    assert events.check("-:mine/two").ok
    assert list(events.listing()) == []


@pytest.mark.parametrize(
    ("second", "caret"),
    [("b=\\1", "b="), ("a=\\1:u8", "a="), ('a=\\"text"', "a="), ("a=\\2", None), ("a=\\1 b=\\1", "b="), ("", "")],
)
def test_probes_of_one_event_have_the_same_arguments(second, caret):
    events = Events("6.1")
    assert events.check("p:one kernel_clone a=\\1").ok
    error = events.check(line := f"p:one kernel_clone {second}".rstrip()).error
    if caret is None:
        assert error is None
    else:
        assert error.code == "DIFF_ARG_TYPE"
        assert error.column == (line.index(caret) if caret else len(line) + 1)


def test_an_address_is_as_good_as_any_other_to_the_kernel():
    events = Events("6.1")
    assert events.check("p:one 0xffffffff81000000").ok
    assert events.check("p:one 0xffffffff82000000").error.code == "SAME_PROBE"


def test_deletions_take_what_they_name():
    events = Events("6.1")
    for line in ("p:mine/one vfs_read", "p:mine/two vfs_read", "p:other/one vfs_read a=%ax"):
        assert events.check(line).ok
    assert events.check("-:other/one vfs_read a=%bx").error.errno == 2
    assert events.check("-:other/one vfs_read a=%ax").ok
    assert events.check("-:mine/").ok
    assert list(events) == []
    for line in ("-:one", "-", "-:", "-one"):
        assert not events.check(line).ok


def test_bang_deletes_in_dynamic_events_by_the_line_that_made_it():
    events = Events("6.12", "dynamic")
    for line in ("p:one kernel_clone", "r:two kernel_clone", "!p:one kernel_clone"):
        assert events.check(line).ok
    assert list(events.listing()) == ["r10:kprobes/two kernel_clone"]
    assert not Events("6.12").check("!p:one kernel_clone").ok


def test_events_of_the_two_kinds_share_their_names():
    events = Events("6.12", "dynamic")
    assert events.check("p:mine/one vfs_read").ok
    assert events.check("p:mine/one /bin/sh:16").error.code == "EVENT_EXIST"


def test_one_place_has_one_reference_counter():
    events = Events("6.1", "uprobe")
    assert events.check("p:one /bin/sh:16(8)").ok
    error = events.check("p:two /bin/sh:16(24)").error
    assert (error.errno, error.message) == (22, "")
    assert events.check("-:one").ok
    assert events.check("p:two /bin/sh:16(24)").ok


def test_default_names_are_made_of_the_place():
    events = Events("6.1")
    for line in ("p vfs_read", "p:event1 vfs_read", "p:mine/event2 vfs_read", "p:mine/ get_page.isra.0"):
        assert events.check(line).ok
    names = [f"{probe.group}/{probe.event}" for probe in events]
    assert names == ["kprobes/p_vfs_read_0", "kprobes/event1", "mine/event2", "mine/p_get_page_isra_0_0"]


def test_128_arguments_are_the_most():
    many = " ".join(f"a{number}=%ax" for number in range(129))
    for kernel, taken in (("5.10", True), ("6.1", True), ("6.12", False), ("7.2", False)):
        verdict = Events(kernel).check(f"p vfs_read {many}")
        assert verdict.ok == taken
        if taken:
            assert len(verdict.means.arguments) == 128
        else:
            assert verdict.error.errno == 7


def test_every_message_has_a_hint():
    assert MESSAGES.keys() == HINTS.keys()


def test_hint_names_the_kernel_that_would_take_it():
    for line, kernel in (
        ("p vfs_read %ip:symstr", "5.10"),
        ("p vfs_read count", "6.1"),
        ("p:mine.one vfs_read", "5.10"),
    ):
        with pytest.raises(DefinitionError) as caught:
            parse(line, kernel)
        assert "a later kernel would take it" in caught.value.hint
