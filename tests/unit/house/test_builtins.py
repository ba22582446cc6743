"""Claims about the one table of builtins: all that is made of it is complete and current."""

import ast
import inspect
import runpy
from pathlib import Path

import pytest

import kprobes
from kprobes.compiler.back.bpf import builtins as bpf
from kprobes.compiler.back.native import world as native
from kprobes.compiler.front import builtins as front
from kprobes.errors import UsageError
from kprobes.model.builtins import BUILTINS, TABLE
from kprobes.model.words import WORDS

ROOT = Path(__file__).parents[3]
WRITER = runpy.run_path(str(ROOT / "scripts" / "words"))


def test_no_word_has_two_rows():
    assert len(BUILTINS) == len(TABLE)


def test_the_front_makes_a_term_of_each_row_and_of_nothing_else():
    made = set(front.MAKERS) | front.SPECIAL
    assert made <= set(BUILTINS)
    assert set(BUILTINS) - made == {row.name for row in TABLE if row.world} - made


@pytest.mark.parametrize(("engine", "numbers"), [("kernel", bpf.NUMBERS), ("process", native.NUMBERS)])
def test_each_back_has_the_integers_of_the_world_that_the_table_promises(engine, numbers):
    assert set(numbers) == {row.name for row in TABLE if row.world and engine in row.engines.split()}


def test_kinds_of_probes_in_the_table_exist():
    kinds = {kind for row in TABLE for kind in row.kinds.split()}
    assert kinds <= {"kprobe", "kretprobe", "uprobe", "uretprobe", "tracepoint"}


def test_the_stub_for_editors_is_current():
    assert WRITER["STUB"].read_text() == WRITER["stub"](), "run scripts/words"


def test_the_table_in_the_documentation_is_current():
    text = WRITER["LANGUAGE"].read_text()
    assert WRITER["with_table"](text) == text, "run scripts/words"


def test_the_stub_declares_each_name_of_the_face():
    found = set()
    for node in ast.parse(WRITER["stub"]()).body:
        if isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.AnnAssign):
            found.add(node.target.id)
    assert set(kprobes.__all__) <= found


def test_each_name_of_the_face_is_there():
    for name in kprobes.__all__:
        assert getattr(kprobes, name) is not None
    assert not hasattr(kprobes, "nothing")


def test_words_document_themselves():
    assert inspect.getdoc(kprobes.now) == "The time in ns since boot, monotonic."
    assert str(inspect.signature(kprobes.string)) == "(address: 'object', size: 'int' = 64) -> 'str'"
    assert str(inspect.signature(kprobes.emit)) == "(*values: 'object', **named: 'object') -> 'None'"
    assert "comm() -> str" in repr(kprobes.comm)


@pytest.mark.parametrize("name", sorted(WORDS))
def test_a_word_outside_of_a_handler_says_so(name):
    with pytest.raises(UsageError, match=f"{name}.* only inside a handler"):
        WORDS[name]()


def test_fields_outside_of_a_handler_say_so():
    with pytest.raises(UsageError, match=r"current\.comm means"):
        _ = kprobes.current.comm
    assert not hasattr(kprobes.regs, "__wrapped__")
    assert not hasattr(kprobes.now, "value")
