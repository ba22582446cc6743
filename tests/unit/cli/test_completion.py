"""The completion scripts, as a shell carries them out."""

from __future__ import annotations

import subprocess

import pytest

from kprobes.cli import completion
from kprobes.cli.main import COMMANDS
from kprobes.cli.parser import Namespace


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    arguments = Namespace()
    arguments.shell = shell
    assert completion.run(arguments) == 0
    return capsys.readouterr().out


def completed(text: str, *words: str) -> set[str]:
    """Return what bash offers for the last of *words*."""
    numbers = f"COMP_CWORD={len(words) - 1}"
    code = f'{text}\nCOMP_WORDS=("$@"); {numbers}; _kprobes; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", code, "bash", *words], capture_output=True, text=True, check=True)
    assert not done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["trace", "--format", ""], {"table", "json", "ftrace"}),
        (["count", "--format", ""], {"table", "json"}),
        (["trace", "vfs_read", "--engine", "pro"], {"process"}),
        (["trace", "--format", "=", "js"], {"json"}),
        (["trace", "--time", "="], {"start", "delta", "boot", "wall"}),
        (["count", "--arch", ""], {"x86_64", "arm64"}),
        (["check", "--kind", ""], {"kprobe", "uprobe", "dynamic"}),
        (["check", "--arch", "a"], {"aarch64"}),
        (["events", "re"], {"remove"}),
        (["events", ""], {"list", "add", "remove", "clear", "enable", "disable", "filter", "trigger"}),
        (["events", "--for"], {"--format"}),
        (["events", "--vm", "re"], {"remove"}),
        (["events", "--vm", "=", "6.1", "re"], {"remove"}),
        (["events", "--format", "json", "-p", "1", "re"], {"remove"}),
        (["events", "--format", "js"], {"json"}),
        (["events", "--vm", "remove", "nosuchfile"], set()),
        (["events", "remove", "--format", ""], {"table", "json"}),
        (["export", "-o", "x", "b"], {"bundle"}),
        (["export", ""], {"module", "bundle"}),
        (["completion", ""], {"bash", "zsh", "fish"}),
        (["ev"], {"events"}),
    ],
)
def test_bash_completes_commands_actions_and_values(
    words: list[str], offered: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert completed(script("bash", capsys), "kprobes", *words) == offered


def test_every_option_of_a_command_is_completed(capsys: pytest.CaptureFixture[str]) -> None:
    text = script("bash", capsys)
    assert completed(text, "kprobes", "") == set(COMMANDS)
    assert {"--help", "--format", "--engine", "--filter"} <= completed(text, "kprobes", "trace", "--")


def test_fish_is_told_the_values_and_the_actions(capsys: pytest.CaptureFixture[str]) -> None:
    lines = script("fish", capsys).splitlines()
    seen = "complete -c kprobes -n '__fish_seen_subcommand_from"
    assert f"{seen} trace' -l format -x -a 'table json ftrace'" in lines
    assert f"{seen} trace' -l duration" in lines
    assert f"{seen} export; and not __fish_seen_subcommand_from module bundle' -f -a 'module bundle'" in lines
