"""Each snippet of docs/language.md is compiled with real types, and attached where there is a kernel to attach it to.

A snippet is a ```python fence:

- One that defines a function or a class, imports something or makes a map is a module. It is executed, with what it
  asserts. Its probes of the kernel are attached in a guest, its probes of a process are compiled for the program
  `mytool`.
- Any other is the body of a handler, `@kretprobe("vfs_read") def fragment(file, buf, count, pos)`. Names that it uses
  and does not define are those of `GIVEN`, or maps and words of `kprobes`.

Snippets know all names of `kprobes`.
"""

from __future__ import annotations

import ast
import linecache
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

import kprobes
from kprobes.model.probe import Probe
from kprobes.model.within import Within
from kprobes.planner.process import plan_process

REFERENCE = Path(__file__).parents[3] / "docs" / "language.md"
HEAD = '@kretprobe("vfs_read")\ndef fragment(file, buf, count, pos):\n'
# What stands for names that a fragment takes for granted.
GIVEN = {
    "address": "int(buf)",
    "d": "file.f_path.dentry",
    "parent": "file.f_path.dentry.d_parent",
    "p": 'cast(buf, "u64 *")',
    "q": 'cast(buf, "u64 *")',
    "sk": 'cast(buf, "struct sock *")',
    "n": "count",
    "x": "count",
}
KERNEL_KINDS = frozenset({"kprobe", "kretprobe", "tracepoint"})


@dataclass(frozen=True)
class Snippet:
    line: int
    text: str

    @property
    def is_module(self) -> bool:
        return any(_is_of_module(node) for node in ast.parse(self.text).body)

    def module(self) -> str:
        """Return the snippet as the source of a module."""
        return self.text if self.is_module else HEAD + _indented(self._given() + self.text)

    def _given(self) -> str:
        nodes = [node for node in ast.walk(ast.parse(self.text)) if isinstance(node, ast.Name)]
        first = {node.id: node for node in sorted(nodes, key=lambda one: (-one.lineno, -one.col_offset))}
        used = {name for name, node in first.items() if isinstance(node.ctx, ast.Load)}
        return "".join(f"{name} = {text}\n" for name, text in GIVEN.items() if name in used)


def _is_of_module(node: ast.stmt) -> bool:
    makes = isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Name)
    return isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom) or (
        makes and node.value.func.id[0].isupper()
    )


def _indented(text: str) -> str:
    return "".join(f"    {line}" if line.strip() else line for line in text.splitlines(keepends=True))


def snippets() -> list[Snippet]:
    text = REFERENCE.read_text()
    found = re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [Snippet(text.count("\n", 0, one.start()) + 2, one[1]) for one in found]


def probes_of(snippet: Snippet) -> list[Probe]:
    """Execute the snippet as a module; return the probes it defines."""
    text, name = snippet.module(), f"language.md:{snippet.line}"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    names: dict[str, object] = {"__name__": "snippet"}
    names.update({word: getattr(kprobes, word) for word in kprobes.__all__})
    exec(compile(text, name, "exec", dont_inherit=True), names)
    return list(dict.fromkeys(value for value in names.values() if isinstance(value, Probe)))


@pytest.fixture(scope="module")
def mytool(programs):
    with subprocess.Popen([programs / "mytool"], stdin=subprocess.PIPE) as process:
        yield process
        process.communicate(b"\n")


@pytest.mark.parametrize("snippet", snippets(), ids=lambda one: f"line {one.line}")
def test_each_snippet_of_the_reference_works(snippet, guest_of, mytool):
    probes = probes_of(snippet)
    in_kernel = [probe for probe in probes if probe.kind in KERNEL_KINDS]
    if in_kernel:
        with guest_of("6.12").attach(*in_kernel) as session:
            assert session.plan.programs
    in_process = [probe for probe in probes if probe.kind not in KERNEL_KINDS]
    if in_process:
        assert plan_process(in_process, Within(mytool.pid, native=True)).natives
    assert probes or snippet.is_module


def test_the_reference_has_snippets_of_each_kind():
    kinds = [one.is_module for one in snippets()]
    assert kinds.count(True) >= 5
    assert kinds.count(False) >= 2
