"""uprobes on a program of our own, through real bpf(2) calls."""

import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bpf_assembly import (
    COOKIE,
    EXIT,
    GET_STACKID,
    R0,
    R1,
    R2,
    R3,
    R6,
    R7,
    R10,
    Code,
    add_to,
    call,
    emit,
    load,
    mov,
    movi,
    op,
    store,
    xadd,
)
from victim import Victim

from kprobes.engines.kernel import syscall, uprobes
from kprobes.engines.kernel.engine import KernelEngine
from kprobes.errors import SymbolNotFoundError, TargetError, UnprobeableError, UsageError, VerifierError
from kprobes.model.layout import MapLayout
from kprobes.model.plan import Attachment, Plan, PlannedProbe, Site, SourceLine, Way

STATS = MapLayout("stats", "stats", 4, 32, 1, shards=1)
RING = MapLayout("ring", "ring", 0, 0, 1 << 20)


def plan(sites, programs, maps=(STATS, RING), attachments=None, pid=-1):
    attachments = attachments or (Attachment(0, tuple(range(len(sites))), pid=pid),)
    probe = PlannedProbe("uprobe", "test", (programs[0].way,))
    return Plan((probe,), tuple(sites), tuple(maps), tuple(programs), tuple(attachments), ())


def counter(way=Way.UPROBE):
    return add_to(Code(), "stats").add(movi(R0, 0), EXIT).program(way)


def site(path, offsets, name="work"):
    return Site(0, name, symbol=name, path=str(path), address=offsets[name])


@pytest.fixture
def engine():
    with KernelEngine() as made:
        yield made


def hits(attached, at=0):
    ((_, value),) = attached.read_map("stats")
    return struct.unpack_from("<Q", value, at)[0]


def count_programs():
    """How many programs called kpt_* the kernel holds, whoever loaded them."""
    number, found = 0, 0
    while True:
        attributes = syscall.buffer(struct.pack("<III", number, 0, 0))
        if syscall._bpf(11, attributes) < 0:  # BPF_PROG_GET_NEXT_ID
            return found
        number = struct.unpack_from("<I", attributes, 4)[0]
        fd = syscall._bpf(13, syscall.buffer(struct.pack("<III", number, 0, 0)))  # BPF_PROG_GET_FD_BY_ID
        if fd >= 0:
            info = syscall.buffer(80)
            syscall.object_info(fd, info, "reading a program's name")
            found += info.raw[64:80].startswith(b"kpt_")
            os.close(fd)


def first_byte(victim, program, offset):
    """The byte that the running program has at a file offset (its mappings are as in the file)."""
    base = next(line for line in Path(f"/proc/{victim.pid}/maps").read_text().splitlines() if str(program) in line)
    with Path(f"/proc/{victim.pid}/mem").open("rb") as memory:
        memory.seek(int(base.split("-")[0], 16) + offset)
        return memory.read(1)


def test_counts_are_exact_and_stop_at_detach(engine, victim, program, offsets):
    attached = engine.attach(plan([site(program, offsets)], [counter()]))
    victim.call("w", 1234)
    attached.detach()
    victim.call("w", 100)
    assert hits(attached) == 1234
    assert [stats.missed for stats in attached.link_stats()] == [0]
    attached.close()
    attached.close()


def test_records_carry_the_arguments(engine, victim, program, offsets):
    code = emit(Code(), "ring").add(movi(R0, 0), EXIT).program(Way.UPROBE)
    attached = engine.attach(plan([site(program, offsets)], [code]))
    victim.call("w", 5)
    records = []
    while len(records) < 5:
        records += attached.poll(1)
    assert [struct.unpack_from("<IIQQ", record)[3] for record in records] == [0, 1, 2, 3, 4]
    assert {len(record) for record in records} == {40}
    assert attached.poll(0.01) == []
    attached.close()


def test_a_return_probe_sees_what_the_function_returned(engine, victim, program, offsets):
    code = Code().add(load(8, R6, R1, 80))  # pt_regs.ax
    code = code.value(R1, "stats").add(xadd(R1, 0, R6), movi(R0, 0), EXIT).program(Way.URETPROBE)
    attached = engine.attach(plan([site(program, offsets)], [code]))
    assert victim.call("w", 10) == hits(attached) == sum(3 * i + 7 for i in range(10))
    attached.close()


def test_pid_limits_a_probe_to_one_process(engine, victim, program, offsets):
    bystander = Victim(program)
    try:
        attached = engine.attach(plan([site(program, offsets)], [counter()], pid=victim.pid))
        victim.call("w", 7)
        bystander.call("w", 50)
        assert hits(attached) == 7
        attached.close()
    finally:
        bystander.close()


def by_cookie():
    """Count in stats[cookie]."""
    code = Code().add(call(COOKIE), mov(R6, R0), op(0x57, R6, imm=3), op(0x67, R6, imm=3))
    code.value(R1, "stats").add(op(0x0F, R1, R6), movi(R2, 1), xadd(R1, 0, R2), movi(R0, 0), EXIT)
    return code.program(Way.UPROBE, cookie="cookie")


@pytest.mark.parametrize("limited", [False, True])
def test_one_link_tells_its_sites_apart(engine, victim, program, offsets, limited):
    sites = [site(program, offsets, name) for name in ("work", "other", "deep")]
    attached = engine.attach(plan(sites, [by_cookie()], pid=victim.pid if limited else -1))
    victim.call("w", 3)
    victim.call("o", 5)
    victim.call("d", 2)
    assert [hits(attached, 8 * number) for number in range(3)] == [3, 5, 2 * 4]
    (stats,) = attached.link_stats()
    assert stats.sites == (0, 1, 2)
    attached.close()


def test_a_program_per_site_is_told_its_site(engine, victim, program, offsets):
    code = Code().site(R6).add(op(0x57, R6, imm=3), op(0x67, R6, imm=3))
    code.value(R1, "stats").add(op(0x0F, R1, R6), movi(R2, 1), xadd(R1, 0, R2), movi(R0, 0), EXIT)
    sites = [site(program, offsets, name) for name in ("work", "other")]
    attached = engine.attach(plan(sites, [code.program(Way.UPROBE, cookie="site")]))
    victim.call("w", 3)
    victim.call("o", 5)
    assert [hits(attached, 8 * number) for number in range(2)] == [3, 5]
    assert [stats.sites for stats in attached.link_stats()] == [(0,), (1,)]
    attached.close()


def test_a_hash_map_is_read_whole(engine, victim, program, offsets):
    table = MapLayout("table", "hash", 8, 8, 5000)
    code = Code().add(load(8, R6, R1, 112), store(8, R10, -8, R6), store(8, R10, -16, R6))
    code.map(R1, "table").add(
        mov(R2, R10), op(0x07, R2, imm=-8), mov(3, R10), op(0x07, 3, imm=-16), movi(4, 0), call(2)
    )
    attached = engine.attach(plan([site(program, offsets)], [code.add(movi(R0, 0), EXIT).program(Way.UPROBE)], [table]))
    victim.call("w", 4000)
    pairs = attached.read_map("table")
    assert sorted(struct.unpack("<Q", key)[0] for key, _ in pairs) == list(range(4000))
    assert all(key == value for key, value in pairs)
    attached.close()


def test_constants_are_there_and_known_to_the_verifier(engine, victim, program, offsets):
    table = MapLayout("table", "constants", 4, 16, 1, initial=struct.pack("<QQ", 5, 6))
    code = Code().value(R1, "table", 8).add(load(8, R6, R1, 0))
    code.value(R1, "stats").add(xadd(R1, 0, R6), movi(R0, 0), EXIT)
    attached = engine.attach(plan([site(program, offsets)], [code.program(Way.UPROBE)], [STATS, table]))
    victim.call("w", 2)
    assert hits(attached) == 12
    attached.close()


def test_a_stack_is_read_innermost_first(engine, victim, program, offsets):
    stacks = MapLayout("stacks", "stacks", 4, 127 * 8, 64)
    code = Code().map(R2, "stacks").add(movi(R3, 1 << 8), call(GET_STACKID), mov(R7, R0))
    code.value(R1, "stats").add(store(8, R1, 0, R7), movi(R0, 0), EXIT)
    attached = engine.attach(plan([site(program, offsets)], [code.program(Way.UPROBE)], [STATS, stacks]))
    victim.call("w", 1)
    stack = attached.read_stack(hits(attached))
    assert stack[0] & 0xFFF == offsets["work"] & 0xFFF
    assert attached.read_stack(12345) == attached.read_stack(-14) == ()
    attached.close()


def test_a_refused_instruction_is_refused_even_where_no_process_has_the_file(engine, tmp_path, program, offsets):
    copy = tmp_path / "copy"
    copy.write_bytes(program.read_bytes())
    with pytest.raises(UnprobeableError, match=r"locked can't be probed: .*don't support the instruction"):
        engine.attach(plan([site(copy, offsets, "locked")], [counter()]))


def test_a_refused_instruction_is_refused_for_a_process_without_the_file(engine, tmp_path, victim, program, offsets):
    copy = tmp_path / "copy"
    copy.write_bytes(program.read_bytes())
    with pytest.raises(UnprobeableError, match="locked can't be probed"):
        engine.attach(plan([site(copy, offsets, "locked")], [counter()], pid=victim.pid))


@pytest.mark.parametrize("places", [["other"], ["work", "other"]], ids=["alone", "together"])
@pytest.mark.parametrize("bits", [1, 2], ids=["32-bit", "64-bit"])
def test_an_avx512_instruction_which_the_kernel_would_break_is_refused(
    engine, tmp_path, program, offsets, places, bits
):
    copy = tmp_path / "copy"
    content = bytearray(program.read_bytes())
    evex = bytes.fromhex("62f1fe487fc1")  # vmovdqu64 zmm1, zmm0
    content[offsets["other"] : offsets["other"] + len(evex)] = evex
    copy.write_bytes(content)
    with pytest.raises(UnprobeableError, match=r"other can't be probed: .*AVX-512") as caught:
        engine.attach(plan([site(copy, offsets, name) for name in places], [by_cookie()]))
    assert "--engine process" in caught.value.hint


def test_all_or_nothing_names_the_refused_site(engine, victim, program, offsets):
    names = ["work", "other", "locked", "deep"]
    before = {path.name for path in Path("/proc/self/fd").iterdir()}
    with pytest.raises(UnprobeableError, match="locked can't be probed"):
        engine.attach(plan([site(program, offsets, name) for name in names], [by_cookie()]))
    assert {path.name for path in Path("/proc/self/fd").iterdir()} == before
    assert Path(f"/proc/{victim.pid}/maps").exists()
    assert victim.call("o", 3) == 6


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"path": "/nonexistent/file"}, TargetError, "there is no file '/nonexistent/file'"),
        ({"address": 1 << 30}, UnprobeableError, "beyond its end"),
        ({"path": "/proc/self"}, UnprobeableError, "not a regular file"),
    ],
)
def test_bad_files_are_named(engine, program, offsets, change, error, says):
    fields = {"path": str(program), "address": offsets["work"], **change}
    with pytest.raises(error, match=says):
        engine.attach(plan([Site(0, "work", **fields)], [counter()]))


def test_a_process_that_is_gone_is_said(engine, program, offsets):
    with pytest.raises(TargetError, match="is gone"):
        engine.attach(plan([site(program, offsets)], [counter()], pid=2**22 - 1))


def test_the_verifier_speaks_on_the_python_line(engine, program, offsets):
    text = "    x = table[n]"
    code = Code().value(R1, "stats").add(load(8, R0, R1, 4096), EXIT)
    lines = (SourceLine(0, "probe.py", 3, 0, "def f():"), SourceLine(2, "probe.py", 4, 8, text))
    with pytest.raises(VerifierError) as caught:
        engine.attach(plan([site(program, offsets)], [code.program(Way.UPROBE, lines=lines)]))
    assert str(caught.value).startswith("probe.py:4:9: the kernel's verifier refused the handler: ")
    assert "invalid access to map value, value_size=32 off=4096 size=8" in str(caught.value)
    assert str(caught.value).endswith(f"\n{text:>{len(text) + 4}}\n            ^")
    assert "bound it first" in caught.value.hint


def test_a_tracepoint_is_found_without_a_mounted_tracefs(engine, victim, program, offsets):
    code = add_to(Code(), "stats").add(movi(R0, 0), EXIT).program(Way.TRACEPOINT)
    attached = engine.attach(plan([Site(0, "t", symbol="sched:sched_switch")], [code]))
    time.sleep(0.05)
    attached.detach()
    assert hits(attached) > 0
    attached.close()


def test_a_raw_tracepoint_is_found_by_name(engine):
    code = add_to(Code(), "stats").add(movi(R0, 0), EXIT).program(Way.RAW_TRACEPOINT)
    attached = engine.attach(plan([Site(0, "t", symbol="sched:sched_switch")], [code]))
    time.sleep(0.05)
    attached.detach()
    assert hits(attached) > 0
    attached.close()


@pytest.mark.parametrize("way", [Way.TRACEPOINT, Way.RAW_TRACEPOINT])
def test_an_unknown_tracepoint_is_named(engine, way):
    code = add_to(Code(), "stats").add(movi(R0, 0), EXIT).program(way)
    with pytest.raises(SymbolNotFoundError, match="sched:nothing_such"):
        engine.attach(plan([Site(0, "t", symbol="sched:nothing_such")], [code]))


def test_a_tracepoint_can_t_name_another_file(engine):
    code = add_to(Code(), "stats").add(movi(R0, 0), EXIT).program(Way.TRACEPOINT)
    with pytest.raises(UsageError):
        engine.attach(plan([Site(0, "t", symbol="..:../../etc")], [code]))


CONTROLLER = """
import sys, time
sys.path[:0] = {paths!r}
from test_kernel_uprobe import *
offsets = {{"work": {work}, "other": {other}}}
code = add_to(Code(), "stats").add(movi(R0, 0), EXIT).program(Way.UPROBE, name="kpt_victim")
code2 = emit(Code(), "ring").add(movi(R0, 0), EXIT).program(Way.URETPROBE, name="kpt_ret")
sites = [site({program!r}, offsets), site({program!r}, offsets, "other")]
attached = KernelEngine().attach(plan(sites, [code, code2], attachments=(Attachment(0, (0, 1)), Attachment(1, (0, 1)))))
print("ready", flush=True)
time.sleep(60)
"""


def test_nothing_is_left_after_sigkill(victim, program, offsets):
    paths = [str(Path(__file__).parent), str(Path(uprobes.__file__).parents[3])]
    text = CONTROLLER.format(paths=paths, program=str(program), work=offsets["work"], other=offsets["other"])
    original = first_byte(victim, program, offsets["work"])
    controller = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)
    assert controller.stdout.readline() == "ready\n"
    assert count_programs() == 2
    assert first_byte(victim, program, offsets["work"]) == b"\xcc"
    controller.kill()
    controller.wait()
    controller.stdout.close()
    deadline = time.monotonic() + 60
    while count_programs() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert count_programs() == 0
    assert first_byte(victim, program, offsets["work"]) == original


def test_a_file_is_found_among_the_mappings(program, victim):
    maps = Path(f"/proc/{victim.pid}/maps").read_text()
    assert uprobes.maps_file(maps, str(program))
    assert not uprobes.maps_file(maps, "/bin/sh")
    assert not uprobes.maps_file(maps, "/nonexistent")
