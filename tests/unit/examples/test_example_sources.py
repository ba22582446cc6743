"""Examples are read before they are run: short, explained, and each a set of probes."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from kprobes.cli.run import load_script
from kprobes.model.probe import HandlerSource, Probe

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.py"))


def test_there_are_at_least_eight():
    assert len(EXAMPLES) >= 8


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_says_what_it_shows(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 45
    assert len(ast.get_docstring(ast.parse(text)) or "") > 20


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_defines_probes_with_handlers(path):
    probes = [value for value in load_script(str(path)).values() if isinstance(value, Probe)]
    assert probes
    for probe in probes:
        assert isinstance(probe.handler, HandlerSource)
        assert probe.places


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_imports_only_kprobes_and_the_standard_library(path):
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    assert imported <= {"kprobes", "socket"}
