from __future__ import annotations

from kprobes.model.ctype import Function, Int, Parameter, Pointer, Struct, Void
from kprobes.model.probe import AutoHandler
from kprobes.planner.auto import write_handler

LONG = Int("long", 8, True)
CHAR = Int("char", 1, True, "char")
FILE = Pointer(Struct("file", 232, False, 1))


def prototype(*parameters: tuple[str, object], returns=LONG):
    return Function("probed", tuple(Parameter(name, ctype) for name, ctype in parameters), returns)


def text(auto, **around):
    return write_handler(auto, **{"returns": False, "prototype": None, **around}).text


def test_every_argument_is_shown_by_its_name():
    written = text(AutoHandler("trace"), prototype=prototype(("file", FILE), ("count", LONG)))
    assert "def trace(file, count):" in written
    assert "file=file, count=count" in written


def test_a_const_char_pointer_is_shown_as_a_string_and_a_buffer_is_not():
    string, buffer = ("name", Pointer(CHAR, const=True)), ("buf", Pointer(CHAR))
    assert "name=name.string(), buf=buf" in text(AutoHandler("trace"), prototype=prototype(string, buffer))


def test_parameters_that_python_or_the_language_needs_go_by_number():
    written = text(AutoHandler("trace"), prototype=prototype(("from", LONG), ("pid", LONG), ("", LONG)))
    assert "def trace():" in written
    assert "from_=arg(1), pid=arg(2), arg3=arg(3)" in written


def test_parameters_behind_a_struct_by_value_are_left_out():
    written = text(AutoHandler("trace"), prototype=prototype(("a", LONG), ("s", FILE.target), ("b", LONG)))
    assert "def trace(a):" in written


def test_a_return_shows_value_and_duration():
    written = text(AutoHandler("trace"), returns=True, prototype=prototype(("file", FILE)))
    assert "retval = yield" in written
    assert "_duration=now() - _start" in written
    assert "retval=retval" in written


def test_a_void_function_returns_nothing_to_show():
    assert "retval" not in text(AutoHandler("trace"), returns=True, prototype=prototype(returns=Void()))


def test_the_condition_guards_the_event_and_stays_on_one_line():
    written = text(AutoHandler("trace", condition="arg(1) >\n 3"))
    assert "    if arg(1) > 3:\n        emit(" in written


def test_a_parameter_called_like_a_word_of_types_is_the_parameter():
    written = text(AutoHandler("trace", condition="flags & 1"), prototype=prototype(("flags", LONG), ("args", LONG)))
    assert "def trace(flags, args):" in written
    assert "flags=flags, args=args" in written
