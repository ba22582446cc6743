"""Errors as they reach standard error."""

import io
import json
import subprocess
import sys

from kprobes.cli.main import main
from kprobes.cli.problems import MOST_SHOWN, write_problems
from kprobes.errors import Call, CompileError, UsageError, VerifierError, all_mistakes


def mistake(line, what="no", **more):
    return CompileError(what, place=("f.py", line, 4), source="    line", **more)


def written(error, **options):
    stream = io.StringIO()
    write_problems(error, stream, **options)
    return stream.getvalue()


def test_each_mistake_is_shown_with_its_line_and_the_calls_that_lead_there():
    call = Call("helper", "f.py", 3, 0, "helper(5)\n")
    error = all_mistakes([mistake(9, "second"), mistake(1, "first", calls=(call,), hint="do so")])
    assert written(error) == (
        "error: first\n --> f.py:1:5\n  |\n1 |     line\n  |     ^\n  in helper(), called at f.py:3: helper(5)\n"
        "hint: do so\n\nerror: second\n --> f.py:9:5\n  |\n9 |     line\n  |     ^\n"
    )


def test_no_more_than_twenty_are_shown_and_the_rest_is_counted():
    text = written(all_mistakes([mistake(line) for line in range(1, 31)]))
    assert text.count("error: ") == MOST_SHOWN
    assert text.endswith("note: 10 more mistakes are not shown\n")


def test_as_json_each_is_one_object_whose_lines_and_columns_count_from_one():
    rows = [json.loads(line) for line in written(all_mistakes([mistake(2), mistake(1)]), as_json=True).splitlines()]
    assert [(row["severity"], row["file"], row["line"], row["column"]) for row in rows] == [
        ("error", "f.py", 1, 5),
        ("error", "f.py", 2, 5),
    ]
    assert json.loads(written(UsageError("odd", hint="so"), as_json=True)) == {
        "severity": "error", "message": "odd", "hint": "so",
    }  # fmt: skip


def test_the_verifier_s_log_is_shown_where_debugging_is_asked_for(monkeypatch):
    error = VerifierError("refused", log="12: R0 !read_ok")
    assert "R0" not in written(error)
    monkeypatch.setenv("KPROBES_DEBUG", "1")
    assert "12: R0 !read_ok" in written(error)


def test_a_wrong_request_with_json_is_told_in_json(capsys):
    assert main(["run", "/no/such/file.py", "--format", "json"]) == 2
    assert json.loads(capsys.readouterr().err)["severity"] == "error"
    assert main(["run", "/no/such/file.py", "--format=json", "--", "x"]) == 2
    assert json.loads(capsys.readouterr().err)["severity"] == "error"
    assert main(["run", "/no/such/file.py", "--", "--format=json"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_package_that_is_not_installed_is_named():
    code = "import sys; sys.modules['iced_x86'] = None; from kprobes.cli.main import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, "explain", "libc:malloc", "--", "/bin/true"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the Python package iced-x86 is needed")
    assert "pip install kprobes" in done.stderr
