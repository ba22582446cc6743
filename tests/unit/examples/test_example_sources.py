"""Examples are read before they are run: short, explained, and each a set of probes."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from kprobes.cli.run import load_script
from kprobes.model.probe import HandlerSource, Probe

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.py"))


def test_there_are_at_least_twenty():
    assert len(EXAMPLES) >= 20


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


def test_the_table_in_the_documentation_has_each_example_and_its_lines():
    docs = (Path(__file__).parents[3] / "docs" / "examples.md").read_text()
    rows = re.findall(r"^\| (\w+) \| .+? \| (\d+) \| (\d*) ?\|$", docs, re.MULTILINE)
    lines = {path.stem: sum(bool(line.strip()) for line in code_of(path)) for path in EXAMPLES}
    assert {name: int(count) for name, count, _ in rows} == lines
    assert all(int(count) < int(original) for _, count, original in rows if original)


def code_of(path: Path) -> list[str]:
    """Return the lines of an example behind what it says about itself."""
    text = path.read_text()
    docstring = ast.parse(text).body[0]
    assert docstring.end_lineno
    return text.splitlines()[docstring.end_lineno :]
