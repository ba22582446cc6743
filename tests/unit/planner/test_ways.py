from __future__ import annotations

from dataclasses import replace

import pytest

from kprobes.errors import UnsupportedError, UsageError
from kprobes.model.features import Features
from kprobes.model.probe import Probe
from kprobes.planner.build import Builder
from kprobes.planner.ways import Demand, candidates

ALL = Features("key", "6.12", 2, True, True, True, True, True, True, True)
ENTRY = Demand(registers=False, entry=True, exit=False, at_entry=True, traceable=True, typed=True, sites=1)
PAIR = replace(ENTRY, exit=True)


def first(demand, features=ALL, forced=""):
    return candidates(demand, features, forced)[0].names()


def test_one_typed_function_goes_by_fentry():
    assert first(ENTRY) == ("fentry",)
    assert first(PAIR) == ("fentry", "fexit")


def test_many_functions_share_one_multi_link():
    assert first(replace(ENTRY, sites=100)) == ("kprobe.multi",)


def test_pairs_over_many_functions_share_two_multi_links():
    assert first(replace(PAIR, sites=100)) == ("kprobe.multi", "kretprobe.multi")
    assert first(replace(PAIR, sites=100), replace(ALL, kprobe_multi=False)) == ("kprobe", "kretprobe")


@pytest.mark.parametrize("change", [{"registers": True}, {"at_entry": False}, {"traceable": False}])
def test_what_ftrace_can_not_give_goes_by_kprobe(change):
    assert first(replace(ENTRY, **change)) == ("kprobe",)


def test_a_kernel_without_fentry_and_multi_goes_by_kprobe():
    assert first(ENTRY, replace(ALL, fentry=False, kprobe_multi=None)) == ("kprobe",)


def test_an_untyped_function_goes_by_multi():
    assert first(replace(ENTRY, typed=False)) == ("kprobe.multi",)


def test_a_forced_way_is_taken_or_refused():
    assert first(ENTRY, forced="kprobe") == ("kprobe",)
    with pytest.raises(UsageError):
        first(replace(ENTRY, registers=True), forced="fentry")
    with pytest.raises(UsageError):
        first(ENTRY, forced="magic")


def test_no_kernel_runs_a_handler_on_a_fault():
    builder = Builder(ALL, None, frozenset())
    with pytest.raises(UnsupportedError, match="the kernel runs no handler when a probed instruction faults"):
        builder.resolve(Probe("uprobe", ("libc:malloc",), on_fault=True))
