"""Names in tracefs: of threads, of instances and their events, of what the kernel counted."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from kprobes.engines.kernel import owners
from kprobes.engines.kernel.trace_instance import _GUARD, _make_instance, _names_of
from kprobes.engines.kernel.trace_threads import plain_name
from kprobes.engines.kernel.traced import Profile, TracedAttached, read_profile
from kprobes.errors import SyscallError
from kprobes.model.plan import COUNT_ONLY, TraceEvent


@pytest.mark.parametrize(
    ("shown", "plain"),
    [
        (b"cat\n", b"cat"), (b"kworker/0:2-events\n", b"kworker/0:2"), (b"kworker/u8:0+flush-8:0\n", b"kworker/u8:0"),
        (b"rcu_exp_gp_kthread_worker\n", b"rcu_exp_gp_kthr"), (b"a-b+c\n", b"a-b+c"), (b"two\nlines\n", b"two\nlines"),
    ],
)  # fmt: skip
def test_a_name_in_proc_becomes_the_kernels_own(shown: bytes, plain: bytes) -> None:
    assert plain_name(shown) == plain


def test_two_events_of_one_name_get_groups_of_their_own_unless_the_definition_names_one() -> None:
    wanted = [("", "a"), ("mine", "a"), ("", "a"), ("", "b"), ("", "a")]
    assert _names_of("ours", wanted) == ["ours/a", "mine/a", "ours_1/a", "ours/b", "ours_2/a"]


def test_a_profile_is_read_by_the_order_of_the_events(tmp_path: Path) -> None:
    (tmp_path / "kprobe_events").write_text("p:one/a vfs_read\nr10:two/a vfs_read $retval\n")
    (tmp_path / "kprobe_profile").write_text("  a     7     0\n  a     6     1\n")
    (tmp_path / "uprobe_events").write_text("p:one/u /bin/my cat:0x10\n")
    (tmp_path / "uprobe_profile").write_text("  /bin/my cat u      5\n")
    assert read_profile(str(tmp_path), "kprobe_events") == {"one/a": Profile(7, 0), "two/a": Profile(6, 1)}
    assert read_profile(str(tmp_path), "uprobe_events") == {"one/u": Profile(5, 0)}


def test_only_what_a_dead_process_of_our_namespace_made_is_abandoned() -> None:
    ours = owners.namespace()
    assert not owners.is_abandoned(owners.group_of(os.getpid()), ours)
    assert owners.is_abandoned(f"kprobes_py_{ours}_4194303_77", ours)
    assert owners.is_abandoned(f"kprobes_py_{ours}_{os.getpid()}_1", ours)
    for other in ("kprobes_py_1_4194303_77", f"other_py_{ours}_4194303_77", "kprobes", "", "kprobes_py_a_b_c"):
        assert not owners.is_abandoned(other, ours)


def test_an_instance_has_a_name_that_nobody_else_of_ours_has_taken(tmp_path: Path) -> None:
    (tmp_path / "instances").mkdir()
    owner = owners.group_of(os.getpid())
    assert [_make_instance(str(tmp_path)) for _ in range(3)] == [f"{owner}_{number}" for number in range(3)]
    with pytest.raises(SyscallError, match="making a trace instance"):
        _make_instance(str(tmp_path / "nowhere"))


def test_a_guard_that_does_not_find_tracefs_leaves_all_else_alone(tmp_path: Path) -> None:
    command = ["/bin/sh", "-c", _GUARD, "sh", str(tmp_path / "gone"), "ours", "ours/event"]
    subprocess.run(command, cwd=tmp_path, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, timeout=60)
    assert not list(tmp_path.iterdir())


def test_threads_that_start_while_a_limit_is_set_are_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    lists = iter([["7"], ["7", "9", "8"], ["9", "10"], ["7", "10"]])
    written: list[tuple[str, str, bool]] = []

    def note(file: str, text: str, *, append: bool = False) -> None:
        written.append((file, text, append))

    monkeypatch.setattr("kprobes.engines.kernel.traced._threads_of", lambda pid: next(lists) if pid == 7 else [])
    traced = TracedAttached.__new__(TracedAttached)
    traced._is_first = True
    traced._plan = SimpleNamespace(traced=[TraceEvent(0, "p:a/b f", COUNT_ONLY, True, pid=7)])  # type: ignore[assignment]
    traced._instance = SimpleNamespace(set=note)  # type: ignore[assignment]
    traced._limit()
    assert written == [
        ("options/event-fork", "1", False),
        ("set_event_pid", "7 ", False),
        ("set_event_pid", "8 9 ", True),
        ("set_event_pid", "10 ", True),
    ]
