"""The quick reader of options says what argparse says, or leaves it to argparse."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kprobes.cli.main import COMMANDS
from kprobes.cli.options import make_parser, parse
from kprobes.cli.parser import Namespace, Parser, _UnusualError
from kprobes.errors import UsageError

WORDS = ["a", "b", "", "-n", "-n3", "3", "--number", "--number=3", "--number=x", "--stack", "--stack=1", "--list", "-x"]
WORDS += ["--format", "json", "--format=table", "-", "--", "--unknown", "-1", "--list=q"]


def sample(positionals: str) -> Parser:
    parser = Parser("kprobes sample", "Sample.", "")
    for name, count in {"one": ("one", None), "many": ("many", "+"), "maybe": ("maybe", "?")}.items():
        if name in positionals:
            parser.add_argument(count[0], **({"nargs": count[1]} if count[1] else {}))
    parser.add_argument("-n", "--number", type=int)
    parser.add_argument("--stack", action="store_true")
    group = parser.add_argument_group("group")
    group.add_argument("--list", action="append", default=[])
    group.add_argument("--format", choices=("table", "json"), default="table")
    return parser


@given(
    st.sampled_from(["one", "many", "maybe", "one many", "one maybe", ""]), st.lists(st.sampled_from(WORDS), max_size=6)
)
@settings(max_examples=600)
def test_what_is_read_quickly_is_what_argparse_reads(positionals, words):
    parser = sample(positionals)
    try:
        quick = parser._read(words)
    except _UnusualError:
        return
    full = parser._full().parse_args(words, namespace=Namespace())
    assert vars(quick) == vars(full)


@pytest.mark.parametrize(
    "words", [["a", "-n3"], ["a", "-n", "3"], ["a", "--number=3"], ["-n", "3", "a"], ["a", "--stack", "-n", "3"]]
)
def test_every_spelling_is_understood(words):
    found = sample("one").parse_args(words)
    assert (found.one, found.number) == ("a", 3)


@pytest.mark.parametrize(
    "words", [[], ["a", "b"], ["a", "-n", "x"], ["a", "--format", "xml"], ["a", "--nope"], ["a", "-n"]]
)
def test_mistakes_are_usage_errors_with_a_hint(words):
    with pytest.raises(UsageError) as caught:
        sample("one").parse_args(words)
    assert "--help" in caught.value.hint


def test_each_option_given_twice_or_in_a_list_keeps_to_its_own_parse():
    parser = sample("one")
    assert parser.parse_args(["a", "--list", "x", "--list=y"]).list == ["x", "y"]
    assert parser.parse_args(["a"]).list == []


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_with_all_its_options(name, capsys):
    module, summary = COMMANDS[name]
    command = __import__(f"kprobes.cli.{module}", fromlist=("run",))
    parser = make_parser(name, summary, command.__doc__)
    command.add_arguments(parser)
    with pytest.raises(SystemExit) as caught:
        parse(parser, ["--help"])
    shown = capsys.readouterr().out
    assert not caught.value.code
    assert all(option in shown for option in parser.option_names())


def test_argparse_is_not_imported_for_what_is_plainly_right():
    import subprocess

    code = f"""
import sys
sys.path[:0] = {sys.path!r}
import kprobes.cli.trace as command
from kprobes.cli.options import make_parser, parse
parser = make_parser("trace", "s", command.__doc__)
command.add_arguments(parser)
print(parse(parser, ["vfs_read", "--if", "count > 1", "-n", "1", "--vm=6.1"]).condition, "argparse" in sys.modules)
"""
    found = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "count > 1 False\n"
