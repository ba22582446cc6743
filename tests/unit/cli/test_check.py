"""`kprobes check`: a verdict for each line, in order."""

import io
import json
from types import SimpleNamespace

import pytest

from kprobes.cli.check import ROWS
from kprobes.cli.main import main

TEXT = """\
p:one do_sys_openat2 dfd=%di filename=+0(%si):string
# nothing

p:one vfs_read %foo
-:one
-:one
p vfs_read $comm:u8
"""
KALLSYMS = """\
ffffffff81000000 T _stext
ffffffff81000100 T vfs_read
ffffffff81000200 t twice
ffffffff81000300 t twice
ffffffff81000400 D _edata
ffffffff81000500 T _etext
ffffffff81000600 D _end
"""


@pytest.fixture
def definitions(tmp_path):
    path = tmp_path / "definitions"
    path.write_text(TEXT)
    return str(path)


def check(*words):
    return main(["check", "--kernel", "6.1", *words])


def test_json_has_one_object_a_line(definitions, capsys):
    assert check("--json", definitions) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["line"] for row in rows] == list(range(1, 8))
    assert [row["ok"] for row in rows] == [True, True, True, False, True, False, False]
    assert all(list(row) == ["line", "ok", "canonical", "error", "column", "errno"] for row in rows)
    assert rows[0]["canonical"] == "p:kprobes/one do_sys_openat2 dfd=%di filename=+0(%si):string"
    assert rows[1]["canonical"] is None
    assert rows[3] | {"error": "Invalid register name", "column": 15, "errno": 22} == rows[3]
    assert (rows[5]["error"], rows[5]["column"], rows[5]["errno"]) == ("No such file or directory", None, 2)
    assert (rows[6]["error"], rows[6]["column"], rows[6]["errno"]) == ("Invalid argument", None, 22)


def test_more_lines_than_are_written_at_a_time_keep_their_order(monkeypatch, capsys):
    class Ending(io.BytesIO):
        def __next__(self):
            if self.tell() == len(self.getvalue()):
                raise OSError(5, "Input/output error")
            return super().__next__()

    lines = b"".join(b"p:e%d vfs_read\n" % number for number in range(2 * ROWS + 7))
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=Ending(lines)))
    assert check("-") == 2  # what has been checked by then is told
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [(row[0], row[2]) for row in rows] == [
        (f"{number + 1}", f"p:kprobes/e{number}") for number in range(2 * ROWS + 7)
    ]


def test_text_shows_the_caret_under_its_place(definitions, capsys):
    assert check(definitions) == 1
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("    4  refused  Invalid register name (EINVAL)")
    assert lines[at + 1].lstrip() == "p:one vfs_read %foo"
    assert lines[at + 2].index("^") == lines[at + 1].index("%foo")
    assert lines[at + 3].lstrip().startswith("hint: registers are")


def test_standard_input_is_read_and_good_lines_exit_with_0(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"p vfs_read\nr vfs_read $retval")))
    assert check("-") == 0
    assert capsys.readouterr().out.count("ok") == 2


def test_kallsyms_tells_what_there_is(tmp_path, capsys):
    table, file = tmp_path / "kallsyms", tmp_path / "definitions"
    table.write_text(KALLSYMS)
    file.write_text(
        "p vfs_read\np vfs_raed\np twice\np:a vfs_read @_edata\np:b vfs_read @nothing\np _edata\nr vfs_read+8\n"
    )
    assert check("--json", "--kallsyms", str(table), str(file)) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["errno"], row["error"]) for row in rows] == [
        (None, None),
        (2, "Invalid probed address or symbol"),
        (99, "The symbol is not unique"),
        (None, None),
        (2, "Invalid probed address or symbol"),
        (22, "Failed to register probe event"),
        (22, "Retprobe address must be an function entry"),
    ]


def test_other_kinds_of_dynamic_events_get_no_verdict(tmp_path, capsys):
    file = tmp_path / "definitions"
    file.write_text(
        "p vfs_read\ne:x sched.sched_switch\nf vfs_read\nt:a/b sched_switch\ns:y u32 pid\nx vfs_read\nfoo\n"
    )
    oks = {
        "5.10": [True, False, False, False, None, False, False],
        "6.12": [True, None, None, None, None, False, False],
    }
    for kernel, expected in oks.items():
        assert check("--kind", "dynamic", "--json", "--kernel", kernel, str(file)) == 1
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [row["ok"] for row in rows] == expected
    assert rows[1]["error"] == "event probes are not modelled here"
    file.write_text("s:y u32 pid\n")
    assert check("--kind", "dynamic", "--kernel", "6.1", str(file)) == 0
    assert capsys.readouterr().out == "    1  no verdict: synthetic events are not modelled here\n"


def test_files_of_uprobes_are_looked_for_when_asked(tmp_path, capsys):
    file = tmp_path / "definitions"
    file.write_text(f"p {file}:16\np {tmp_path}:16\np {tmp_path}/none:16\n")
    assert check("--kind", "uprobe", str(file)) == 0
    capsys.readouterr()
    assert check("--kind", "uprobe", "--files", "--json", str(file)) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["error"] for row in rows] == [None, "Not a regular file", "Failed to find the given file"]


@pytest.mark.parametrize(
    "words",
    [["--kernel", "2.6"], ["--kernel", "new"], ["/no/such/file"], ["p vfs_read"], ["--vm", "--kallsyms", "x"]],
)
def test_wrong_usage_exits_with_2(words, capsys):
    assert main(["check", *words]) == 2
    assert "error: " in capsys.readouterr().err


def test_other_kernel_is_told_of(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"p vfs_read\n")))
    assert main(["check", "--kernel", "6.6"]) == 0
    assert "checked as 6.1: 6.6 is not among the known kernels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--kallsyms", "/nosuch", "/dev/null"], "/nosuch can't be read"),
        (["--kallsyms", "/dev/null", "/dev/null"], "the symbol table"),
        (["--arch", "mips", "/dev/null"], "architecture 'mips' is not known"),
        (["/proc/self/mem"], "/proc/self/mem can't be read"),
    ],
)
def test_what_can_not_be_checked_is_not_taken_for_a_refused_line(words, told, capsys):
    assert check(*words) == 2
    assert told in capsys.readouterr().err


def test_a_symbol_table_without_addresses_is_refused(tmp_path, capsys):
    table = tmp_path / "kallsyms"
    table.write_text("".join(f"{'0' * 16}{line[16:]}\n" for line in KALLSYMS.splitlines()))
    assert check("--kallsyms", str(table), "/dev/null") == 2
    assert "copy it as root" in capsys.readouterr().err


def test_a_bundle_is_told_as_one(tmp_path, capsys):
    (tmp_path / "b.kpb").write_bytes(b"KPB1\0\0")
    assert check(str(tmp_path / "b.kpb")) == 2
    assert "is a bundle" in capsys.readouterr().err
