"""What is read from the kernel's texts, and what its refusals become."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kprobes.engines.kernel import cache, features, kretprobe_events, owners, privilege, refusals
from kprobes.errors import KprobesError, PrivilegeError, SymbolNotFoundError, SyscallError, UnprobeableError
from kprobes.model.plan import Site, Way

NOTES = bytes.fromhex(
    "040000001400000003000000474e550048dc540c8b76393804ca8088dbfa7d42911a9444"
    "0600000004000000010100004c696e757800000000000000"
    "060000001e000000000100004c696e7578000000362e312e3130322d312e3138322e616d7a6e323032332e7838365f36340000"
)


def test_the_build_id_is_found_among_the_notes():
    assert features.parse_build_id(NOTES) == "48dc540c8b76393804ca8088dbfa7d42911a9444"
    assert features.parse_build_id(NOTES[36:] + NOTES[:36]) == ""  # cut short inside the note before it
    assert features.parse_build_id(NOTES[36:60] + NOTES[:36]) == "48dc540c8b76393804ca8088dbfa7d42911a9444"


@given(st.binary(max_size=200))
def test_any_notes_are_read_without_a_crash(notes):
    assert isinstance(features.parse_build_id(notes), str)


@pytest.mark.parametrize(("text", "count"), [("0-1\n", 2), ("0", 1), ("0-3,8,10-11\n", 7), ("", 1), ("x-y", 1)])
def test_cpu_lists_are_counted(text, count):
    assert features.parse_cpus(text) == count


@given(st.dictionaries(st.sampled_from(["kprobe", "fentry", "perf_link"]), st.booleans()))
def test_answers_survive_the_cache_s_text(answers):
    assert cache.parse_answers(cache.format_answers(answers)) == answers


def test_damaged_answers_are_left_out():
    assert cache.parse_answers("kprobe=yes\nfentry=maybe\n=no\nx y=no\nring_buffer=no") == {
        "kprobe": True,
        "ring_buffer": False,
    }


def test_answers_are_kept_on_disk_by_key(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache.store_answers("abc", {"kprobe": True})
    assert cache.load_answers("abc") == {"kprobe": True}
    assert cache.load_answers("abd") == {}
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "kprobes").iterdir()] == [0o600]
    (tmp_path / "kprobes").rename(tmp_path / "elsewhere")
    (tmp_path / "kprobes").write_text("a file in the way")
    cache.store_answers("abc", {"kprobe": True})
    assert cache.load_answers("abc") == {}


NOTHING = dict.fromkeys(features._QUESTIONS, False)


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ({"ring_buffer": True, "kprobe": True}, ""),
        ({"ring_buffer": True, "kprobe": False, "fentry": True}, ""),
        ({"ring_buffer": True}, "this kernel has no kprobes (CONFIG_KPROBES is off)"),
        ({"ring_buffer": False}, "this kernel has no BPF ring buffer"),
        ({"ring_buffer": None}, "this user may not probe the kernel"),
        ({"ring_buffer": True, "kprobe": None}, "this kernel refuses kprobes"),
    ],
)
def test_a_kernel_that_can_t_be_probed_is_explained(answers, says):
    refusal, hint = features.explain({**NOTHING, **answers})
    assert refusal.startswith(says)
    assert bool(hint) == bool(refusal) == bool(says)


STATUS = "Name:\tx\nCapInh:\t0\nCapEff:\t{:016x}\nCapBnd:\t0\n"
ALL = (1 << 41) - 1


@pytest.mark.parametrize(
    ("held", "lockdown", "says"),
    [
        (0, "", "missing CAP_BPF and CAP_PERFMON (unprivileged_bpf_disabled is 2)"),
        (1 << 39, "", "missing CAP_PERFMON ("),
        (1 << 39 | 1 << 38, "", "CAP_SYS_ADMIN is missing"),
        (ALL, "none [integrity] confidentiality\n", "kernel lockdown is on (integrity)"),
        (ALL, "[none] integrity confidentiality\n", "a container or a security module"),
        (ALL, "", "a container or a security module"),
    ],
)
def test_the_missing_right_is_named(held, lockdown, says):
    assert says in privilege.explain(STATUS.format(held), lockdown, "2\n")


@pytest.mark.parametrize(
    ("number", "error", "says"),
    [
        (errno.ENOENT, SymbolNotFoundError, "no function 'vfs_read'"),
        (
            errno.EILSEQ,
            UnprobeableError,
            "can't be probed: the address is not the beginning of an instruction",
        ),
        (errno.EINVAL, UnprobeableError, "the kernel keeps probes out of this place"),
        (errno.EADDRNOTAVAIL, UnprobeableError, "several symbols have this name"),
        (errno.EBUSY, UnprobeableError, "another user of this function"),
        (errno.EOPNOTSUPP, UnprobeableError, "can't be run out of line"),
        (524, UnprobeableError, "can't be run out of line"),
        (errno.EPERM, PrivilegeError, "not permitted"),
        (errno.EACCES, PrivilegeError, "not permitted"),
        (errno.ENOMEM, SyscallError, "Cannot allocate memory"),
    ],
)
def test_what_the_kernel_refuses_is_said_in_words(number, error, says):
    refused = refusals.kernel_refusal(Site(0, "vfs_read", symbol="vfs_read"), Way.KPROBE, number)
    assert type(refused) is error
    assert says in str(refused)


def test_a_return_probe_in_mid_function_is_said_to_be_that():
    site = Site(0, "vfs_read+0x10", symbol="vfs_read", offset=16)
    assert "beginning of a function" in str(refusals.kernel_refusal(site, Way.KRETPROBE, errno.EINVAL))


@given(st.integers(1, 600), st.sampled_from([Way.UPROBE, Way.URETPROBE]))
def test_every_errno_has_an_error_of_ours(number, way):
    for refuse in (refusals.kernel_refusal, refusals.file_refusal, refusals.tracepoint_refusal):
        error = refuse(Site(0, "", symbol="s", path="/f"), way, number)
        assert isinstance(error, KprobesError)
        assert error.what


def test_only_what_a_dead_owner_left_in_our_namespace_is_cleaned():
    ours = owners.namespace()
    mine = owners.group_of(kretprobe_events.os.getpid())
    events = f"""\
r100:{mine}/r0_1 vfs_read
r100:kprobes_py_{ours}_4194303_77/r0_4194303 vfs_read
r100:kprobes_py_1_4194303_77/r1_4194303 vfs_read
p:kprobes/p_vfs_read_0 vfs_read

r:other_py_{ours}_4194303_77/x vfs_read
"""
    assert kretprobe_events.leftovers(events, ours) == [f"kprobes_py_{ours}_4194303_77/r0_4194303"]


def test_the_start_time_is_found_behind_any_name():
    assert owners.start_time("7 (a) b (c) S 1 " + " ".join(str(n) for n in range(5, 30))) == "22"
    assert owners.start_time("") == ""


def test_the_misses_of_events_are_read_from_the_profile():
    profile = "  r0_77                                                      102              9\n  odd line\n  p_x 1 0\n"
    assert kretprobe_events.parse_profile(profile) == {"r0_77": 9, "p_x": 0}
