"""The commands as a user types them, against a guest that is up."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from guest_harness import KPROBES, ROOT, TIMEOUT_S, run_kprobes

from kprobes import kallsyms_lookup_name

SLACK = timedelta(seconds=5)  # the clocks are compared by calls, which may take long
DD = ("--", "dd", "if=/dev/zero", "of=/dev/null", "bs=4096", "count=100")


def objects(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_trace_shows_arguments_by_their_c_names(newest):
    done = newest.command("trace", "vfs_write", "--if", "comm == 'dd' and count == 4096", "-n", "3", *DD)
    lines = [line for line in done.errors.splitlines() if " vfs_write " in line]
    assert len(lines) == 3
    assert all("count=4096" in line and "file=0x" in line and " dd " in line for line in lines)


def test_times_of_day_in_a_guest_are_those_of_this_machine(newest):
    before = datetime.now(UTC)
    done = newest.command("trace", "vfs_write", "--if", "comm == 'dd'", "-n", "2", "--format", "json", *DD)
    shown = [datetime.fromisoformat(f"{row['time'][:26]}+00:00") for row in objects(done.errors)]
    assert before - SLACK <= shown[0] <= shown[1] <= datetime.now(UTC) + SLACK


def test_trace_of_a_return_shows_value_and_duration(newest):
    done = newest.command("trace", "r:vfs_write", "--if", "comm == 'dd' and retval == 4096", "--format", "json", *DD)
    found = objects(done.errors)
    assert len(found) == 100
    assert all(row["args"] == {"retval": 4096} and row["duration_ns"] > 0 for row in found)
    assert {"time_ns", "probe", "cpu", "pid", "tid", "comm"} <= set(found[0])


def test_trace_prints_expressions_and_stacks(newest):
    done = newest.command(
        "trace", "vfs_write", "--if", "comm == 'dd'", "--print", "count * 2, file.f_path.dentry.d_name.name.string(16)",
        "--stack", "-n", "1", "--format", "json", *DD,
    )  # fmt: skip
    row = objects(done.errors)[0]
    assert row["args"] == {"count * 2": 8192, "file.f_path.dentry.d_name.name": "null"}
    assert row["stack"][0].startswith("vfs_write")
    assert any(frame.startswith("ksys_write") for frame in row["stack"])


def test_trace_of_a_tracepoint_shows_its_fields(newest):
    done = newest.command("trace", "t:sched:sched_process_exec", "--format", "json", "--", "id")
    assert any(row["args"]["filename"].endswith("/id") for row in objects(done.errors))


def test_count_takes_globs_and_tells_each_function(newest):
    done = newest.command("count", "vfs_re*", "vfs_write", "--format", "json", *DD)
    hits = {row["probe"]: row["hits"] for row in objects(done.errors)}
    assert hits["vfs_write"] >= 100
    assert hits["vfs_read"] >= 100
    assert "vfs_readlink" in hits


def test_hist_sorts_linearly_and_by_program(newest):
    done = newest.command(
        "hist", "vfs_write", "count", "--linear", "4000:4200:96", "--by", "comm", "--format", "json", *DD
    )
    row = next(row for row in objects(done.errors) if row["key"] == "dd")
    assert [4096, 4192, 100] in row["buckets"]


def test_hist_of_a_return_value_moves_to_the_return(newest):
    done = newest.command("hist", "vfs_write", "retval", "--if", "comm == 'dd'", *DD)
    assert "[4K, 8K)  100" in done.errors or "[4K, 8K)" in done.errors
    assert "fexit" in done.errors


def test_latency_times_each_call(newest):
    done = newest.command("latency", "vfs_write", "--if", "comm == 'dd'", "--unit", "ns", "--format", "json", *DD)
    row = objects(done.errors)[0]
    assert row["total"] >= 100
    assert row["mean"] > 0


def test_list_and_info_tell_what_can_be_probed(newest):
    listed = newest.command("list", "vfs_read*").output.split()
    assert {"vfs_read", "vfs_readlink"} <= set(listed)
    assert "t:sched:sched_switch" in newest.command("list", "t:sched:*").output
    page = newest.command("info", "vfs_read").output
    assert "ssize_t vfs_read(struct file *file, char *buf, size_t count, loff_t *pos)" in page
    assert "fentry, kprobe.multi, kprobe" in page


def test_info_says_why_a_function_is_refused(newest):
    page = newest.command("info", "get_kprobe").output
    assert "can be probed  no: the kernel blacklists it" in page


def test_the_status_of_the_command_in_the_guest_passes_through(newest):
    newest.command("count", "vfs_read", "--", "sh", "-c", "exit 7", status=7)
    newest.command("count", "vfs_read", "--", "sh", "-c", "kill -9 $$", status=137)


def test_the_programs_output_stays_its_own(newest):
    done = newest.command("count", "vfs_read", "--", "sh", "-c", "echo out; echo err >&2")
    assert done.output == "out\n"
    assert "err\n" in done.errors


def test_a_file_is_copied_into_the_guest(newest, tmp_path):
    (tmp_path / "greeting").write_text("hello\n")
    done = newest.command("count", "vfs_read", f"--copy={tmp_path}/greeting", "--", "cat", "/root/greeting")
    assert done.output == "hello\n"


def test_the_output_file_is_private_and_whole(newest, tmp_path):
    path = tmp_path / "out.json"
    done = newest.command("count", "vfs_write", "--format", "json", "-o", str(path), *DD)
    assert objects(path.read_text())[0]["hits"] >= 100
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "vfs_write" not in done.output
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_ends_with_its_summary(newest, number):
    words = ["trace", "vfs_write", f"--kernel={newest.kernel}"]
    with subprocess.Popen(
        [*KPROBES, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as running:
        assert running.stdout is not None
        assert "ARGUMENTS" in running.stdout.readline()
        running.send_signal(number)
        _, errors = running.communicate(timeout=TIMEOUT_S)
    assert running.returncode == 0
    assert "1 place" in errors


def test_a_closed_pipe_ends_the_command_quietly(newest):
    script = f"{' '.join(KPROBES)} trace --kernel={newest.kernel} vfs_read | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_strict_fails_where_something_was_missed(newest, tmp_path):
    script = tmp_path / "wild.py"
    script.write_text(
        "from kprobes import deref, emit, kprobe\n\n\n"
        '@kprobe("vfs_write")\ndef wild(file, count):\n    emit(deref(16, "u64"))\n'
    )
    newest.command("run", str(script), *DD)
    done = newest.command("run", str(script), "--strict", *DD, status=1)
    assert "fault" in done.errors


def test_a_script_looks_symbols_up_in_the_kernel_that_it_is_run_on(newest, tmp_path):
    script = tmp_path / "symbols.py"
    script.write_text(
        "from kprobes import emit, kallsyms_lookup_name, kprobe\n\n"
        'ADDRESS = kallsyms_lookup_name("vfs_write")\n\n\n'
        '@kprobe("vfs_write")\ndef written():\n    emit(address=ADDRESS)\n'
    )
    done = newest.command("run", str(script), "-n", "1", "--format", "json", *DD)
    assert objects(done.errors)[0]["address"] == kallsyms_lookup_name("vfs_write", newest.target) != 0


def test_a_script_without_probes_is_refused(tmp_path):
    script = tmp_path / "empty.py"
    script.write_text("x = 1\n")
    assert "defines no probe" in run_kprobes("run", "--vm", str(script), status=2).errors


def test_a_scripts_own_mistake_is_shown_with_its_line(tmp_path):
    script = tmp_path / "broken.py"
    script.write_text("import math\n\nmath.nothing\n")
    errors = run_kprobes("run", "--vm", str(script), status=1).errors
    assert f"{script}:3: AttributeError" in errors
    assert "Traceback" not in errors


def test_no_place_is_a_usage_error():
    done = run_kprobes("trace", "--vm", status=2)
    assert done.errors.startswith("error:")


def test_help_teaches_with_examples():
    for command in ("trace", "count", "hist", "latency", "run", "list", "info", "vm", "detach", "doctor", "completion"):
        text = run_kprobes(command, "--help").output
        assert f"kprobes {command}" in text.split("examples:")[1]


def test_completion_scripts_are_valid_bash():
    script = run_kprobes("completion", "bash").output
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert "--duration" in script


def test_doctor_tells_of_the_guests(home: Path):
    found = {row["what"]: row for row in objects(run_kprobes("doctor", "--format", "json").output)}
    assert found["QEMU"]["works"]
    assert home.is_dir()


def test_our_own_opening_of_files_is_not_among_what_is_traced(newest):
    first, second = "p:opened do_sys_openat2 name=+0(%si):string", "r:back do_sys_openat2 $retval:s32"
    for words in ((first, second), ("do_sys_openat2",)):
        done = newest.command("trace", "--format", "json", *words, "--", "cat", "/etc/passwd")
        seen = [json.loads(line) for line in done.output.splitlines() if line.startswith("{")]
        seen = seen or [json.loads(line) for line in done.errors.splitlines() if line.startswith("{")]
        assert {row["comm"] for row in seen if "comm" in row} == {"cat"}
