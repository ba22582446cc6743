"""From a function to its text, wherever it stands."""

import functools
import importlib.util
import linecache
import subprocess
import sys
import textwrap

import pytest

from kprobes import kprobe
from kprobes.compiler.front.source import source_of
from kprobes.errors import CompileError, UsageError


def load(tmp_path, text, name="script"):
    path = tmp_path / f"{name}.py"
    path.write_text(textwrap.dedent(text))
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_plain_function(tmp_path):
    module = load(tmp_path, "X = 5\n\ndef h(a):\n    # why\n    emit(a)\n\n    emit(X)\n\nY = 6\n")
    source = source_of(module.h)
    assert source.text == "def h(a):\n    # why\n    emit(a)\n\n    emit(X)\n"
    assert (source.name, source.line, source.indent) == ("h", 3, 0)
    assert source.file.endswith("script.py")
    assert source.names["X"] == 5


def test_a_function_below_decorators(tmp_path):
    module = load(
        tmp_path,
        """
        def keep(*names):
            return lambda function: function

        @keep("a",
              "b")
        @keep("c")
        def h(a):
            emit(a)
    """,
    )
    source = source_of(module.h)
    assert source.text.startswith("def h(a):\n")
    assert source.line == 8


def test_a_nested_function_sees_its_closure(tmp_path):
    module = load(
        tmp_path,
        """
        def make(limit):
            unused = 1
            def h(count):
                if count > limit:
                    emit(count)
            return h
    """,
    )
    source = source_of(module.make(7))
    assert source.text == "def h(count):\n    if count > limit:\n        emit(count)\n"
    assert (source.line, source.indent) == (4, 4)
    assert source.names["limit"] == 7
    assert "unused" not in source.names


def test_a_string_that_reaches_into_the_margin(tmp_path):
    module = load(tmp_path, 'def make():\n    def h():\n        """One\ntwo\n"""\n        emit(1)\n    return h\n')
    source = source_of(module.make())
    assert source.text.rstrip().endswith("emit(1)")


def test_brackets_that_close_in_the_margin(tmp_path):
    module = load(tmp_path, "def h(\n    a,\n    b,\n):\n    emit(\n        a,\n    )\n\nx = 1\n")
    assert source_of(module.h).text == "def h(\n    a,\n    b,\n):\n    emit(\n        a,\n    )\n"


def test_one_line(tmp_path):
    module = load(tmp_path, "def h(): emit(1)\nx = 1\n")
    assert source_of(module.h).text == "def h(): emit(1)\n"


def test_tabs_and_comments_in_the_margin(tmp_path):
    module = load(tmp_path, "if True:\n\tdef h():\n# note\n\t\temit(1)\n")
    source = source_of(module.h)
    assert source.indent == 1
    compile(source.text, "x", "exec")


def test_other_encodings(tmp_path):
    path = tmp_path / "latin.py"
    path.write_bytes("# -*- coding: latin-1 -*-\ndef h():\n    emit('größe')\n".encode("latin-1"))
    spec = importlib.util.spec_from_file_location("latin", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert "größe" in source_of(module.h).text


def test_text_known_only_to_linecache():
    text = "def h():\n    emit(1)\n"
    space = {}
    exec(compile(text, "<notebook>", "exec"), space)
    linecache.cache["<notebook>"] = (len(text), None, text.splitlines(keepends=True), "<notebook>")
    assert source_of(space["h"]).text == text


def test_text_that_is_nowhere():
    space = {}
    exec("def h():\n    emit(1)\n", space)
    with pytest.raises(CompileError, match="source of h is not to be found") as caught:
        source_of(space["h"])
    assert "file" in caught.value.hint


def test_a_file_that_has_changed_since(tmp_path):
    module = load(tmp_path, "\n\ndef h():\n    emit(1)\n")
    (tmp_path / "script.py").write_text("x = 1\ny = 2\nz = 3\n")
    linecache.checkcache()
    with pytest.raises(CompileError, match="its file has changed"):
        source_of(module.h)


class Holder:
    def method(self):
        pass


async def waiting():
    pass


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (lambda: 1, "lambda"),
        (Holder().method, "this is a method"),
        (Holder, "this is a type"),
        (functools.partial(load), "this is a partial"),
        (len, "this is a builtin"),
        (waiting, "async"),
        (5, "this is an int"),
    ],
)
def test_what_is_no_plain_function_is_refused(thing, message):
    with pytest.raises(CompileError, match=message) as caught:
        source_of(thing)
    assert caught.value.hint


def test_nothing_heavy_is_imported_for_it(tmp_path):
    load(tmp_path, "def h():\n    emit(1)\n")
    code = f"""
import sys
sys.path[:0] = {[*sys.path, str(tmp_path)]!r}
import kprobes.errors, kprobes.model.probe, script
before = set(sys.modules)
from kprobes.compiler.front.source import source_of
source_of(script.h)
print(sorted(set(sys.modules) - before))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == "['kprobes.compiler', 'kprobes.compiler.front', 'kprobes.compiler.front.source']\n"


def plain():
    pass


def wrapping(function):
    @functools.wraps(function)
    def wrapper(*values):
        return function(*values)

    return wrapper


class Callable:
    def __call__(self):
        pass

    def method(self):
        pass


@pytest.mark.parametrize(
    ("thing", "what", "hint"),
    [
        (wrapping(plain), "plain is wrapped by another decorator", "leave the other decorator out"),
        (kprobe("x")(plain), "this is a Probe", 'one decorator takes all its places: @kprobe("a", "b")'),
        (Callable, "this is a type", "HashMap"),
        (Callable(), "this is a Callable", "write it with def"),
        (Callable().method, "this is a method", "a handler has no self"),
        (classmethod(plain), "this is a classmethod", "out of the class"),
        (len, "this is a builtin_function_or_method", "write it with def"),
        (functools.partial(plain), "this is a partial", "write it with def"),
        (lambda: 1, "a handler can't be a lambda", "write it with def"),
        (5, "this is an int", "write it with def"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_is_no_handler_is_refused_with_what_to_write(thing, what, hint):
    with pytest.raises(CompileError) as caught:
        kprobe("vfs_read")(thing)
    assert what in caught.value.what
    assert hint in caught.value.hint


def test_a_function_without_a_file_is_refused_with_where_to_write_it():
    names = {}
    exec("def made(): pass", names)
    with pytest.raises(CompileError, match="the source of made is not to be found") as caught:
        kprobe("vfs_read")(names["made"])
    assert "write them in a file, or in IPython or Jupyter" in caught.value.hint


def test_a_decorator_without_its_places_says_how_it_is_written():
    with pytest.raises(UsageError, match="needs the places to probe") as caught:
        kprobe(plain)
    assert '@kprobe("name")' in caught.value.hint
