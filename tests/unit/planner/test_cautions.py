"""Warnings about several handlers together."""

import re

from kprobes.compiler.front.compile import Surroundings, compile_handler
from kprobes.model.mapspec import Count, HashMap
from kprobes.model.probe import HandlerSource
from kprobes.model.words import WORDS
from kprobes.planner.cautions import cautions_of
from kprobes.planner.places import NoTypes

NAMES = {**WORDS, "seen": HashMap("seen", key=int, value=int), "calls": Count("calls", by=int)}


def compiled(*sources):
    handlers = []
    for source in sources:
        name = re.search(r"def (\w+)", source)[1]
        text = HandlerSource(name, source, "script.py", 1, 0, NAMES)
        handlers.append(compile_handler(text, Surroundings("uprobe", NoTypes()), {}))
    return [(one.line, one.what) for one in cautions_of(handlers)]


READS = "def r():\n    if pid() in seen:\n        calls.add(by=seen[pid()])\n"
NEVER = "seen is looked into, and no handler writes to it"


def test_a_map_that_is_looked_into_and_never_written_is_told_once_where_it_is_first_read():
    assert compiled(READS, READS) == [(2, NEVER)]


def test_deleting_its_keys_is_no_writing():
    assert compiled(READS, "def d():\n    del seen[5]\n") == [(2, NEVER)]


def test_any_handler_may_write_it():
    assert compiled(READS, "def w():\n    seen[pid()] = 1\n") == []
    assert compiled("def w():\n    seen[pid()] += 1\n", READS) == []


def test_a_map_that_is_only_written_is_read_where_the_session_is():
    assert compiled("def w():\n    seen[pid()] = 1\n    calls.add(by=1)\n") == []


def test_a_line_can_ask_to_be_left_alone():
    assert compiled("def r():\n    if pid() in seen:  # kprobes: ignore\n        calls.add(by=1)\n") == []


def test_one_handler_for_many_prototypes_warns_once():
    unused = "def h():\n    x = pid()\n"
    assert compiled(unused, unused) == [(2, "x is assigned and never used")]
