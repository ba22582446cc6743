"""docs/semantics.md: each test that it names exists, and each rule names one or says why there is none."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "semantics.md").read_text()
NAMED = re.compile(r"`([\w/]+\.py)::(test_\w+)`")
# Nothing can be shown of what is not done: the row says so.
WITHOUT = ("not read",)


def rows() -> list[str]:
    lines = (line for line in TEXT.splitlines() if line.startswith("| "))
    return [line for line in lines if not line.startswith(("| rule |", "| selftest |"))]


def test_each_test_that_is_named_exists() -> None:
    missing = []
    for path, name in NAMED.findall(TEXT):
        file = ROOT / "tests" / path
        if not file.is_file() or not re.search(rf"^def {name}\(", file.read_text(), re.MULTILINE):
            missing.append(f"{path}::{name}")
    assert missing == []


def test_each_rule_names_a_test_or_says_that_it_is_not_done() -> None:
    assert len(rows()) > 90
    assert [row for row in rows() if not NAMED.search(row) and not any(word in row for word in WITHOUT)] == []
