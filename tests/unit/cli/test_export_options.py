"""Options and words of `kprobes export` that don't go together, and places that can't be written."""

import pytest

from kprobes.cli.main import main

DEFINITION = "p:mine vfs_read size=%dx"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["module", DEFINITION, "--for", "6.12"], "--for is for `kprobes export bundle`"),
        (["bundle", DEFINITION, "--build"], "--build is for `kprobes export module`"),
        (["bundle", DEFINITION, "--stack"], "--stack is for `kprobes export module`"),
        (["bundle", DEFINITION, "--name", "other"], "--name is for `kprobes export module`"),
        (["bundle", DEFINITION, "--for", "6.12", "--vm=6.1"], "--for names the kernels"),
        (["bundle", DEFINITION, "--kernel", "6.12", "--vm=6.1"], "name two kernels"),
        (["module", DEFINITION, "--set", "limit=3"], "--set is for scripts"),
        (["module", DEFINITION, "--include", '../secret"'], "is no header of the kernel"),
        (["module", DEFINITION, "--include", "linux/../x.h"], "is no header of the kernel"),
        (["module", DEFINITION, "--", "ls"], "a module probes the kernel"),
        (["module", "nosuch.py"], "can't read 'nosuch.py': No such file or directory\n"),
    ],
)
def test_what_would_be_ignored_is_refused(words, told, tmp_path, capsys):
    at = words.index("--") if "--" in words else len(words)
    assert main(["export", *words[:at], "-o", str(tmp_path / "out"), *words[at:]]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_directory_for_a_module(tmp_path, capsys):
    file = tmp_path / "out"
    file.write_text("mine")
    assert main(["export", "module", DEFINITION, "-o", str(file)]) == 2
    assert "is no directory" in capsys.readouterr().err
    assert file.read_text() == "mine"


def test_a_place_in_a_program_is_refused_with_its_definition(tmp_path, capsys):
    assert main(["export", "module", DEFINITION, "p:other /bin/cat:0x1234", "-o", str(tmp_path / "out")]) == 1
    assert "p:other /bin/cat:0x1234" in capsys.readouterr().err
