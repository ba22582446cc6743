import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kprobes.errors import FormatError, KprobesError, SymbolNotFoundError, UsageError
from kprobes.model.ctype import Array, Int, Pointer, format_ctype
from kprobes.symbols.btf import Btf
from kprobes.symbols.btf_types import KernelTypes
from kprobes.symbols.tracepoint import load_tracepoint, parse_format

from .kernel_facts import FactsOf

GOLDEN = Path(__file__).parents[2] / "golden" / "symbols"
FORMATS = {path.stem: path.read_text() for path in (GOLDEN / "format").iterdir()}


def test_sched_switch_has_its_strings_and_numbers():
    found = parse_format(FORMATS["sched_switch"], category="sched")
    assert (found.name, found.id, found.size) == ("sched_switch", 372, 64)
    assert [f.name for f in found.fields if not f.is_common][:3] == ["prev_comm", "prev_pid", "prev_prio"]
    comm = found.field("prev_comm")
    assert (comm.offset, comm.size, comm.is_string) == (8, 16, True)
    assert found.field("prev_state").type == Int("long", 8, True)
    assert found.field("prev_pid").type == Int("s32", 4, True)
    assert found.field("nothing") is None
    assert found.print_format.startswith('"prev_comm=%s')


def test_types_of_the_kernel_name_what_the_format_does_not():
    types = KernelTypes(Btf((GOLDEN / "vmlinux-6.18.btf").read_bytes()))
    assert parse_format(FORMATS["sched_switch"], types=types).field("prev_pid").type == Int("int", 4, True)


def test_argument_of_a_system_call_is_as_wide_as_its_type():
    found = parse_format(FORMATS["sys_enter_openat"])
    dfd = found.field("dfd")
    assert (dfd.type, dfd.offset, dfd.size) == (Int("int", 4, True), 16, 8)
    assert format_ctype(found.field("filename").type) == "char *"


def test_pointer_to_pointers_is_one():
    argv = parse_format(FORMATS["sys_enter_execve"]).field("argv")
    assert argv.type == Pointer(Pointer(Int("char", 1, True, "char")))


def test_string_elsewhere_in_the_record_is_marked():
    command = parse_format(FORMATS["block_rq_issue"]).field("cmd")
    assert (command.location, command.offset, command.size, command.is_string) == ("data", 60, 4, True)
    relative = parse_format("name: x\n\tfield:__rel_loc char[] y;\toffset:8;\tsize:4;\tsigned:0;\n").field("y")
    assert relative.location == "relative"


def test_arrays_of_small_integers_have_their_count():
    assert parse_format(FORMATS["inet_sock_set_state"]).field("saddr").type == Array(Int("unsigned char", 1, False), 4)


def test_record_of_the_tracepoint_is_found_by_either_spelling():
    facts = FactsOf(GOLDEN, None, {"format:sched/sched_switch": FORMATS["sched_switch"]})
    assert load_tracepoint("sched:sched_switch", facts) == load_tracepoint("sched/sched_switch", facts)
    with pytest.raises(SymbolNotFoundError):
        load_tracepoint("sched:nothing", facts)


@pytest.mark.parametrize("text", ["sched_switch", "../x:y", "a:b:c", "a:../../etc", "sched:", "a b:c"])
def test_misspelt_tracepoint_is_a_usage_error(text):
    with pytest.raises(UsageError):
        load_tracepoint(text, FactsOf(GOLDEN))


@pytest.mark.parametrize(
    "text", ["", "name: x\n", "field:int x;\toffset:1;\tsize:4;", "name: x\n field:;offset:1;size:1;"]
)
def test_what_is_no_format_is_refused(text):
    with pytest.raises(FormatError):
        parse_format(text)


@given(st.sampled_from(sorted(FORMATS)), st.integers(0, 3000), st.text(max_size=30))
def test_scribbled_format_gives_an_error_or_an_answer(name, at, junk):
    text = FORMATS[name]
    with contextlib.suppress(KprobesError):
        parse_format(text[:at] + junk + text[at + len(junk) :])
