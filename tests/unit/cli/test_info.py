"""What `kprobes info` says of words that name no function."""

import pytest

from kprobes.cli.main import main


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        (["vfs_read+4"], "is an instruction", "kprobes explain vfs_read+4"),
        (["0xffffffff81000000"], "is an instruction", "kprobes explain 0xffffffff81000000"),
        (["vfs_*"], "is many functions", "kprobes list 'vfs_*'"),
        (["t:sched:sched_switch"], "is a tracepoint", "kprobes list"),
        (["p:mine vfs_read %di"], "is a definition", "name its function"),
        (["--vm", "vfs_read", "--", "ls"], "runs no command", "leave `-- CMD` out"),
    ],
)
def test_what_is_no_function_is_refused_with_the_command_that_serves(words, error, hint, capsys):
    assert main(["info", *words]) == 2
    told = capsys.readouterr().err
    assert error in told.splitlines()[0]
    assert hint in told.splitlines()[1]
