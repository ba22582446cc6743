"""Settings: found by what handlers name, checked by their type, part of what is compiled and of a plan's name."""

from __future__ import annotations

from types import ModuleType

import pytest
from front.cases import surroundings

from kprobes.compiler.front.compile import compile_handler
from kprobes.compiler.ir.interpret import Interpreter
from kprobes.compiler.ir.world import DryWorld, Frame
from kprobes.errors import UsageError
from kprobes.frozen import replace
from kprobes.model.probe import HandlerSource, Probe
from kprobes.model.setting import Setting
from kprobes.planner.cache import _ingredients
from kprobes.planner.settings import settings_of, values_of, with_settings

limit = Setting("limit", 100, "what is more is sent")
loud = Setting("loud", False)
tag = Setting("tag", "plain")
config = ModuleType("config")
config.deep = Setting("deep", 3)

TEXT = "def h(count):\n    if loud or int(count) > above(limit) + config.deep:\n        emit(count, tag=tag)\n"


def above(value):
    return value + offset


offset = Setting("offset", -1)


def probe(text=TEXT):
    return Probe("kprobe", ("vfs_read",), HandlerSource("h", text, "script.py", 1, 0, globals()))


def sent(one, count):
    around = replace(surroundings("kprobe vfs_read"), settings=one.settings)
    handler = compile_handler(one.handler, around)
    world = DryWorld()
    Interpreter(handler, world).enter(Frame(arguments=(0, 0, count)))
    return len(world.records), len(handler.entry.blocks)


def test_settings_are_found_in_handlers_called_functions_and_modules():
    assert {name: one.default for name, one in settings_of([probe()]).items()} == {
        "limit": 100, "loud": False, "tag": "plain", "deep": 3, "offset": -1,
    }  # fmt: skip
    assert settings_of([probe("def h():\n    pass\n")]) == {}


def test_a_handler_is_compiled_with_the_values_of_its_attach():
    assert sent(probe(), 102)[0] == 0
    assert sent(probe(), 103)[0] == 1
    (changed,) = with_settings([probe()], {"limit": 5, "offset": 0, "deep": 0})
    assert (sent(changed, 5)[0], sent(changed, 6)[0]) == (0, 1)
    (always,) = with_settings([probe()], {"loud": True})
    assert sent(always, 0) == (1, 1), "what a setting rules out is not compiled"


def test_values_in_effect_are_told_and_name_another_plan():
    one = probe()
    (changed,) = with_settings([one], {"tag": "bold"})
    assert values_of([changed]) == {"limit": 100, "loud": False, "tag": "bold", "deep": 3, "offset": -1}
    plain = probe("def h(count):\n    emit(tag=tag)\n")
    names = [list(_ingredients([each])) for each in (plain, plain, *with_settings([plain], {"tag": "bold"}))]
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"limits": 5}, "no handler has a setting 'limits'"),
        ({"limit": "5"}, "takes an integer, not '5'"),
        ({"limit": True}, "takes an integer, not True"),
        ({"limit": 1 << 64}, "takes an integer, not 18446744073709551616"),
        ({"loud": 1}, "takes true or false, not 1"),
        ({"tag": 5}, "takes a string, not 5"),
        ({"tag": None}, "takes a string, not None"),
    ],
)
def test_wrong_values_are_refused_with_a_hint(values, what):
    with pytest.raises(UsageError) as caught:
        with_settings([probe()], values)
    assert what in caught.value.what
    assert caught.value.hint


def test_text_is_read_by_the_type_of_the_setting():
    assert [limit.parsed(text) for text in ("7", "-1", "0x40")] == [7, -1, 64]
    assert [loud.parsed(text) for text in ("true", "ON", "0", "no")] == [True, True, False, False]
    assert tag.parsed("0") == "0"
    for one, text in ((limit, "7us"), (limit, ""), (loud, "maybe"), (limit, "1" * 30)):
        with pytest.raises(UsageError):
            one.parsed(text)


def test_two_settings_of_one_name_must_agree():
    names = {"a": Setting("same", 1), "b": Setting("same", 2)}
    two = Probe("kprobe", ("f",), HandlerSource("h", "def h():\n    emit(a, b)\n", names=names))
    with pytest.raises(UsageError, match="two settings are called 'same'"):
        settings_of([two])


def test_a_setting_of_another_type_is_refused_where_it_is_used():
    with pytest.raises(UsageError, match="is a float"):
        settings_of(
            [Probe("kprobe", ("f",), HandlerSource("h", "def h():\n    emit(a)\n", names={"a": Setting("a", 0.5)}))]
        )
