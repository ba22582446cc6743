"""Each example, run by `kprobes run` beside a workload whose traces are known, on every kernel."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from guest_harness import ROOT, Done, Guest

# see tests/live/process/test_injection.py and test_process_examples.py
IN_A_PROCESS = {"gethostlatency", "inject", "mallocstacks"}
EXAMPLES = sorted({path.stem for path in (ROOT / "examples").glob("*.py")} - IN_A_PROCESS)
WORKLOADS = {
    "argdist": "./calls write 1234 50; ./calls write 100 7",
    "capable": "touch q; chown 5 q",
    "cpudist": "./calls sleep 1 20 5",
    "execsnoop": "./calls getppid 1; ./calls getppid 1",
    "exitsnoop": "sh -c 'exit 3'; ./calls getppid 1",
    "filelife": "echo hi >short; usleep 30000; rm short",
    "funccount": "./calls write 10 500",
    "killsnoop": "./calls sleep 1 900000 1 & until grep -q calls /proc/$!/comm; do usleep 10000; done; kill $!",
    "mountsnoop": "mkdir -p m; mount -t tmpfs some m; umount m; mount -t nosuchfs none m",
    "naptime": "usleep 30000; usleep 30000",
    "offcputime": "./calls sleep 1 700 2",
    "opensnoop": "./calls openat /etc/hostname 3; ./calls openat /no/such/file 2",
    "runqlat": "./calls pipes 4 20",
    "slower": "./calls pipes 1 5",
    "softirqs": "./calls connect 20; usleep 100000",
    "stackcount": "./calls write 10 5000",
    "statsnoop": "stat /etc/hostname; stat /no/such/file",
    "syscount": "./calls getppid 3000",
    "tcpaccept": "./calls connect 3",
    "tcpconnect": "./calls connect 3",
    "tcplife": "./calls connect 3",
    "vfslatency": "./calls write 64 200; ./calls pipes 2 10",
    "vfsstat": "./calls write 10 300; touch new; ./calls openat new 5",
}


@pytest.fixture
def run_example(guest: Guest, tmp_path: Path):
    """Return a function that runs an example beside its workload and gives (the output file, the outcome)."""

    def run(name: str, *words: str) -> tuple[str, Done]:
        output = tmp_path / name
        done = guest.command(
            "run",
            f"examples/{name}.py",
            *(f"--copy={guest.programs / 'calls'}", f"--output={output}", *words),
            *("--", "sh", "-c", f"{WORKLOADS[name]}; exit 0"),
        )
        return output.read_text(), done

    return run


@pytest.fixture
def rows_of(run_example):
    """Return a function that runs an example with JSON output and gives its rows."""

    def rows(name: str) -> list[dict[str, object]]:
        found = [json.loads(line) for line in run_example(name, "--format=json")[0].splitlines()]
        return [row for row in found if "unmatched" not in row]  # calls that are still under way

    return rows


def test_every_example_has_a_workload_here():
    assert sorted(WORKLOADS) == EXAMPLES


def test_argdist_sorts_what_each_program_writes(rows_of):
    maps = {(row["map"], row.get("key")): row["buckets"] for row in rows_of("argdist")}
    assert [1024, 2048, 50] in maps["bytes_to_write", "calls"]
    assert [64, 128, 7] in maps["bytes_to_write", "calls"]
    small = maps["small_writes", None]
    assert all(high - low == 32 for low, high, _ in small if low is not None and high is not None)
    assert next(count for low, _, count in small if low == 96) >= 7


def test_execsnoop_shows_the_programs_that_start(rows_of):
    started = [row for row in rows_of("execsnoop") if row["filename"] == "./calls"]
    assert [row["comm"] for row in started] == ["calls"] * 2
    assert len({row["pid"] for row in started}) == 2
    assert {row["uid"] for row in started} == {0}


def test_funccount_counts_calls_of_the_file_system(rows_of):
    counted = {row["key"]: row["value"] for row in rows_of("funccount")}
    assert 500 < counted["calls"] < 600


def test_killsnoop_shows_who_signals_whom(rows_of):
    sent = [row for row in rows_of("killsnoop") if row["signal"] == 15]
    assert [(row["comm"], row["target_comm"]) for row in sent] == [("sh", "calls")]
    assert sent[0]["sender"] != sent[0]["target"]


def test_opensnoop_shows_files_and_results(rows_of):
    opened = [row for row in rows_of("opensnoop") if row["comm"] == "calls"]
    found = [row for row in opened if row["path"] == "/etc/hostname"]
    missing = [row for row in opened if row["path"] == "/no/such/file"]
    assert len(found) == 3
    assert all(row["fd"] >= 3 for row in found)
    assert [row["fd"] for row in missing] == [-2] * 2
    assert len({row["pid"] for row in found}) == 1


def test_slower_shows_the_reads_that_took_long(rows_of):
    slow = [row for row in rows_of("slower") if row["comm"] == "calls"]
    assert all(row["us"] >= 100 for row in slow)
    assert [row["bytes"] for row in slow if row["bytes"] >= 100] == [100, 101, 102, 103, 104]


def test_stackcount_shows_the_path_to_the_probe(run_example):
    _, done = run_example("stackcount")
    stacks = re.split(r"^ +\d+ times\n", done.output, flags=re.MULTILINE)
    assert re.search(r"^ +50\d\d times$", done.output, re.MULTILINE)
    names = [line.strip().partition("+")[0] for line in stacks[-2].splitlines() if line.strip()]
    assert names[0] == "vfs_write"
    assert names.index("vfs_write") < names.index("ksys_write") < names.index("do_syscall_64")


def test_syscount_sums_the_time_of_each_system_call(rows_of):
    spent = {row["key"]: row["value"] for row in rows_of("syscount") if row["map"] == "nanoseconds"}
    assert spent[110] > 3000 * 10
    assert all(value > 0 for value in spent.values())


def test_tcpconnect_shows_where_connections_go(run_example):
    output, done = run_example("tcpconnect")
    port = next(line for line in done.output.splitlines() if line.isdigit())
    lines = re.findall(r"^ *(\d+) calls +127\.0\.0\.1 +(\d+) +0 +\d+$", output, re.MULTILINE)
    assert [line[1] for line in lines] == [port] * 3
    assert len({line[0] for line in lines}) == 1


def test_vfslatency_times_reads_and_writes_of_each_program(rows_of):
    totals = {(row["map"], row["key"]): row["total"] for row in rows_of("vfslatency")}
    assert totals["write_usecs", "calls"] == 200 + 2 * 10
    assert totals["read_usecs", "calls"] == 2 * 10


def test_capable_tells_which_rights_are_asked_for(rows_of):
    asked = {tuple(row["key"]): row["value"] for row in rows_of("capable")}
    assert asked["chown", 0, True] >= 1  # CAP_CHOWN


def test_cpudist_times_stays_on_a_cpu(rows_of):
    (mine,) = [row for row in rows_of("cpudist") if row.get("key") == "calls"]
    assert mine["total"] >= 5


def test_exitsnoop_tells_the_status_of_programs(rows_of):
    ended = [(row["comm"], row["status"], row["signal"]) for row in rows_of("exitsnoop") if "status" in row]
    assert ("sh", 3, 0) in ended
    assert ("calls", 0, 0) in ended


def test_filelife_tells_how_long_a_file_lived(rows_of):
    (row,) = [row for row in rows_of("filelife") if row.get("file") == "short"]
    assert row["comm"] == "rm"
    assert row["ms"] >= 25


def test_mountsnoop_shows_what_is_mounted_and_what_fails(rows_of):
    rows = [(row["what"], row["where"], row["kind"], row["error"]) for row in rows_of("mountsnoop")]
    assert ("some", "m", "tmpfs", 0) in rows
    assert ("none", "m", "nosuchfs", -19) in rows


def test_naptime_shows_who_sleeps(rows_of):
    rows = [row for row in rows_of("naptime") if row["comm"] == "usleep"]
    assert [row["ms"] for row in rows] == [30] * 2


def test_offcputime_shows_where_threads_wait(run_example):
    _, done = run_example("offcputime")
    waits = re.findall(r"((?:^    \S+\n)+)  calls: (\d+) us$", done.output, re.MULTILINE)
    assert any("epoll_wait" in frames and int(spent) >= 1_350_000 for frames, spent in waits), done.output


def test_runqlat_counts_the_waits_for_a_cpu(rows_of):
    waited = [row for row in rows_of("runqlat") if row["map"] == "waited_usecs"]
    assert waited[0]["total"] >= 80


def test_softirqs_times_each_kind(run_example):
    _, done = run_example("softirqs")
    assert re.search(r"^net_rx +\d+ times, mean \d+ us$", done.output, re.MULTILINE)


def test_statsnoop_shows_paths_and_errors(rows_of):
    looked = {(row["path"], row["error"]) for row in rows_of("statsnoop") if row.get("comm") == "stat"}
    assert {("/etc/hostname", 0), ("/no/such/file", -2)} <= looked


def test_tcpaccept_shows_where_connections_come_from(run_example):
    output, done = run_example("tcpaccept")
    port = next(line for line in done.output.splitlines() if line.isdigit())
    lines = re.findall(r"^ *\d+ calls +127\.0\.0\.1 +(\d+) +(\d+)$", output, re.MULTILINE)
    assert [line[1] for line in lines] == [port] * 3
    assert len({line[0] for line in lines}) == 3


def test_tcplife_tells_what_went_through_a_connection(rows_of):
    rows = [row for row in rows_of("tcplife") if "sent" in row]
    assert (
        sorted((row["received"], row["ms"] >= 0) for row in rows) == [(1, True)] * 3 + [(6, True)] * 3
    )  # with the FIN


def test_vfsstat_counts_by_the_names_of_the_calls(rows_of):
    counted = {row["key"]: row["value"] for row in rows_of("vfsstat")}
    assert counted["vfs_write"] >= 300
    assert counted["vfs_open"] >= 5
