"""The verifier's logs of the programs in `refused`: captured on five kernels, and from the one this runs on."""

import errno
from pathlib import Path

import pytest
import refused
from hypothesis import given
from hypothesis import strategies as st

from kprobes.engines.kernel.maps import KernelMap
from kprobes.engines.kernel.program import Binding, Loader
from kprobes.engines.kernel.verifier import line_of, parse_log, reason_for, verifier_error
from kprobes.errors import VerifierError
from kprobes.model.layout import MapLayout
from kprobes.model.plan import Program, SourceLine

LOGS = Path(__file__).parent / "logs"
KERNELS = ["5.10", "6.1", "6.12", "6.18", "7.2"]
PROGRAMS = refused.programs()
# Refusals that a handler's author can do something about; what else there is is a mistake of the compiler's.
THEIRS = {
    "value", "unset", "scalar", "endless", "helper", "licence", "context", "absent", "unbounded", "steps", "lines",
    "far", "multiplied", "added", "jumps", "zero", "shifted", "length", "two sorts",
}  # fmt: skip


def captured(kernel):
    """Name -> log, of the file for *kernel*."""
    found = {}
    for part in (LOGS / f"verifier-{kernel}.txt").read_text().split("=== ")[1:-1]:
        head, _, log = part.partition("\n")
        found[head.rpartition(" ")[0]] = log
    return found


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_words_and_the_instruction_are_found(kernel, name):
    _, index, words = PROGRAMS[name]
    found = parse_log(captured(kernel)[name])
    assert words in found.words
    assert found.index == (-1 if index is None else index)
    assert "processed" not in found.words
    assert "R10=" not in found.words


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_each_refusal_is_told_in_plain_words_with_what_to_do(kernel, name):
    plain, hint = reason_for(parse_log(captured(kernel)[name]).words)
    assert plain
    assert not any(word in plain for word in ("R0", "R1", "insn", "fp", "ctx", "mem_", "off="))
    assert ("please report" in hint) is (name not in THEIRS), (plain, hint)


def test_there_are_reasons_for_more_than_fifteen_refusals_and_each_kernel_s_are_the_same():
    told = {
        kernel: {name: reason_for(parse_log(log).words) for name, log in captured(kernel).items()} for kernel in KERNELS
    }
    assert all(told[kernel] == told["6.12"] for kernel in KERNELS)
    assert len({plain for plain, _ in told["6.12"].values()}) > 20


@pytest.fixture
def loader():
    stats = KernelMap(MapLayout("stats", "stats", 4, 512, 1, shards=1))
    ring = KernelMap(MapLayout("ring", "ring", 0, 0, 4096))
    made = Loader({"stats": stats.fd, "ring": ring.fd})
    yield made
    made.close()
    ring.close()
    stats.close()


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name != "steps"])  # a million steps take 3 s
def test_this_kernel_refuses_in_words_that_are_found(loader, name):
    _, index, words = PROGRAMS[name]
    with pytest.raises(VerifierError) as caught:
        loader.load(refused.program(name), Binding())
    assert words in caught.value.what
    if index is not None:
        assert parse_log(caught.value.log).index == index


def test_a_refusal_stands_under_the_column_of_its_line():
    lines = (SourceLine(0, "f.py", 1, 0, "def f():"), SourceLine(2, "f.py", 2, 4, "    x.y"))
    error = verifier_error(Program("f", "kprobe", b"", lines=lines), errno.EACCES, captured("6.1")["value"])
    assert str(error) == (
        "f.py:2:5: the kernel's verifier refused the handler: an index lies outside of a map's value (invalid access "
        "to map value, value_size=512 off=4096 size=8; R1 min value is outside of the allowed memory range)\n"
        "        x.y\n        ^"
    )


def test_a_refusal_without_a_log_has_the_errno_s_words():
    error = verifier_error(Program("f", "kprobe", b""), errno.EINVAL, "")
    assert str(error) == "the kernel's verifier refused the program f: Invalid argument"


def test_the_line_before_an_instruction_is_its_line():
    lines = [SourceLine(at, "f", at, 0, "") for at in (2, 5, 9)]
    assert [line_of(lines, at) for at in (0, 2, 4, 5, 100)] == [None, lines[0], lines[0], lines[1], lines[2]]


@given(st.text(st.characters(codec="utf-8"), max_size=300))
def test_any_log_is_read(log):
    assert parse_log(log).index >= -1
