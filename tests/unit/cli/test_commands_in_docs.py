"""Every command line of the documentation and of `--help` is one that its command takes, with definitions that a kernel
takes and filters that fit them."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from itertools import takewhile
from pathlib import Path

import pytest

from kprobes.cli.definitions import is_definition
from kprobes.cli.main import COMMANDS
from kprobes.cli.options import make_parser, parse
from kprobes.grammar.events import parse as parse_definition
from kprobes.grammar.filter import fields_of, parse_filter
from kprobes.model.definition import Definition

ROOT = Path(__file__).parents[3]
NEWEST = "7.2"
# `kprobes NAME` at the beginning of a line, behind a prompt or a table's bar; what explains it stands two blanks behind
SPELLED = re.compile(r"^ *(?:\$ |\| `)?kprobes (?!COMMAND)(?P<words>[a-z].*)", re.MULTILINE)


def lines_of(text: str) -> list[str]:
    found = []
    for match in SPELLED.finditer(text):
        words = match["words"].partition("`")[0] if "| `" in match[0] else match["words"]
        words = re.split(r"(?<=\S) {2,}", words, maxsplit=1)[0]
        if " " not in words and "| `" in match[0]:
            continue  # a name in a table
        if not re.search(r"PROBE|FUNC|GLOB|FILE|SITE|CMD|EXPR|\.\.\.|\\\|", words):
            found.append(words)
    return found


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHOWN = [(page.name, line) for page in PAGES for line in lines_of(page.read_text())]
HELPED = [
    (f"kprobes {name} --help", line)
    for name, (module, _) in COMMANDS.items()
    for line in lines_of(import_module(f"kprobes.cli.{module}").__doc__ or "")
]


def test_there_are_commands_to_check() -> None:
    assert len(SHOWN) > 20
    assert len(HELPED) > 60


@pytest.mark.parametrize(("where", "line"), SHOWN + HELPED)
def test_a_documented_command_is_understood(where: str, line: str) -> None:
    words = shlex.split(line.replace("PID", "1"), comments=True)
    words = [*takewhile(lambda word: word[0] not in "<>|&", words)]
    module, summary = COMMANDS[words[0]]
    parser = make_parser(words[0], summary, "")
    import_module(f"kprobes.cli.{module}").add_arguments(parser)
    arguments = parse(parser, words[1:])
    own = words[1 : words.index("--")] if "--" in words else words[1:]
    fields = []
    for text in filter(is_definition, own):
        kind = "uprobe" if "/" in text.split()[1] else "kprobe"
        means = parse_definition(text, NEWEST, kind)
        assert isinstance(means, Definition), where
        fields += fields_of(means)
    given = getattr(arguments, "filter", "")
    assert not given or parse_filter(given, fields, NEWEST) is not None
