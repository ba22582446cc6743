from __future__ import annotations

import pytest

from kprobes.cli.hist import linear
from kprobes.cli.main import main
from kprobes.cli.options import add_run_options, add_target_options, make_parser, parse, probes_natively, target_of
from kprobes.engines.process.target import check_architecture
from kprobes.engines.targets import Kernel, Machine
from kprobes.errors import UnsupportedError, UsageError
from kprobes.model.probe import Probe


def parsed(*words: str):
    parser = make_parser("trace", "one line per hit", "First.\n\nMore.")
    parser.add_argument("probes", nargs="+")
    add_target_options(parser)
    add_run_options(parser, count=True)
    return parse(parser, words)


def test_vm_does_not_swallow_the_probe_behind_it():
    arguments = parsed("--vm", "vfs_read")
    assert arguments.probes == ["vfs_read"]
    assert target_of(arguments).kernel == ""


def test_vm_takes_its_kernel_behind_an_equals_sign():
    assert target_of(parsed("--vm=6.1", "vfs_read")).kernel == "6.1"


def test_kernel_is_the_same_as_vm():
    target = target_of(parsed("--kernel", "5.10", "vfs_read"))
    assert isinstance(target, Machine)
    assert target.kernel == "5.10"


@pytest.mark.parametrize(
    ("words", "kernel"),
    [
        (["--arch", "arm64"], "6.12-arm64"),
        (["--vm", "--arch=aarch64"], "6.12-arm64"),
        (["--vm=6.1", "--arch=arm64"], "6.1-arm64"),
        (["--kernel=7.2", "--arch=arm64"], "7.2-arm64"),
        (["--vm=6.1-arm64"], "6.1-arm64"),
        (["--vm=5.10", "--arch=x86_64"], "5.10"),
    ],
)
def test_an_architecture_names_the_kernel_in_a_box(words, kernel):
    assert target_of(parsed(*words, "vfs_read")).kernel == kernel


@pytest.mark.parametrize("words", [["--arch=riscv64"], ["--vm=5.10", "--arch=arm64"], ["--arch=arm64", "-p", "1"]])
def test_a_kernel_that_is_not_there_for_an_architecture_is_a_usage_error(words):
    with pytest.raises(UsageError) as caught:
        target_of(parsed(*words, "vfs_read"))
    assert caught.value.hint


class Other:
    """What `uname` says of a machine of another architecture."""

    machine = "aarch64"


def test_the_process_engine_is_taken_where_its_code_runs_alone(monkeypatch):
    probe = Probe("uprobe", ("libc:malloc",), None)
    arguments = parsed("-p", "1", "libc:malloc")
    assert probes_natively(arguments, [probe])
    monkeypatch.setattr("os.uname", Other)
    assert not probes_natively(arguments, [probe])
    with pytest.raises(UnsupportedError, match="x86-64") as caught:
        check_architecture(1)
    assert "--engine uprobe" in caught.value.hint


def test_without_a_target_this_kernel_is_probed():
    assert target_of(parsed("vfs_read")) == Kernel()


def test_words_behind_two_dashes_are_the_command_whatever_they_look_like():
    arguments = parsed("vfs_read", "--", "ls", "--vm", "-n")
    assert arguments.command == ["ls", "--vm", "-n"]
    assert arguments.probes == ["vfs_read"]


@pytest.mark.parametrize(
    "words",
    [
        ["vfs_read", "--"],
        ["--vm=6.1", "--kernel=5.10", "x"],
        ["--vm", "-p", "1", "x"],
        ["--copy", "f", "x"],
        ["-n", "0", "x"],
        ["-n", "many", "x"],
        ["--duration", "-1", "x"],
        ["--duration", "soon", "x"],
        ["-p", "0", "x"],
        [],
        ["--nonsense", "x"],
    ],
)
def test_wrong_words_are_a_usage_error_with_a_hint(words):
    with pytest.raises(UsageError) as caught:
        target_of(parsed(*words))
    assert caught.value.exit_code == 2
    assert caught.value.hint


@pytest.mark.parametrize("text", ["5:1:1", "0:10:0", "0:10:-1", "0:100000:1", "1:5", "a:b:c", ""])
def test_a_linear_range_that_is_none_is_a_usage_error(text):
    with pytest.raises(UsageError, match="is no "):
        linear(text)


@pytest.mark.parametrize(("text", "range_"), [("0:4096:256", (0, 4096, 256)), ("-5:5:1", (-5, 5, 1))])
def test_a_linear_range_is_read(text, range_):
    assert linear(text) == range_


@pytest.mark.parametrize("words", [["vfs_*"], ["--armed"], ["--vm", "vfs_*"]])
def test_a_list_refuses_a_command_that_it_would_not_run(words: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(["list", *words, "--", "true"]) == 2
    told = capsys.readouterr()
    assert not told.out
    assert told.err.startswith("error: `kprobes list` runs no command\n")
    assert "-p PID" in told.err
