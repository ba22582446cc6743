"""Claims about recordings: what a handler saw is all that it takes to run it again, and files may be hostile."""

import contextlib
import random
import stat
import struct
import zlib

import pytest
from front import helpers
from front.cases import compile_text
from front.universe import NAMES, Universe
from hypothesis import given, settings
from hypothesis import strategies as st

from kprobes.arch.x86_64.registers import PT_REGS
from kprobes.compiler.ir.interpret import Interpreter
from kprobes.compiler.ir.recording import Context, recording
from kprobes.compiler.ir.verify import verify
from kprobes.compiler.ir.world import DryWorld, Frame
from kprobes.errors import FormatError, KprobesError, SyscallError, UsageError
from kprobes.events.aggregate import read_map
from kprobes.events.decode import Decoder
from kprobes.events.recording import Recorder, load_recording
from kprobes.model.plan import Plan, PlannedProbe, Site
from kprobes.model.probe import HandlerSource, Probe
from kprobes.replay import Replay
from kprobes.testing import load, run
from testing.test_agrees import golden

EVERYTHING = {**NAMES, **{key: value for key, value in vars(helpers).items() if callable(value)}}
BASE = 0xFFFF_8880_0000_1000
WORDS = {"now": 5_000, "pid": 7, "tid": 8, "uid": 9, "gid": 10, "cpu": 1, "cgroup": 77, "random": 5, "stack": 3,
         "user_stack": 4, "task": BASE + 256}  # fmt: skip


def recorded(case, path, limit=1 << 20, hits=4):
    """Run the handler of *case* in the interpreter, recording; return the same without recording."""
    source = random.Random(case.name)
    kind, *place = case.around.split()
    returns = kind in ("kretprobe", "uretprobe")
    plain = compile_text(case.source, case.around)
    context = Context(6, registers=True, words=("now", "pid", "tid", "uid", "gid", "cpu"), returns=returns)
    handler = recording(plain, context, len(plain.events))
    verify(handler)
    memory = {BASE: bytes(source.randrange(128) if source.random() < 0.5 else 0 for _ in range(1024))}
    regions = {("kernel", BASE): memory[BASE], ("user", BASE): memory[BASE]}
    ours, theirs = (DryWorld(memory=regions, numbers=dict(WORDS)) for _ in range(2))
    machines = Interpreter(handler, ours), Interpreter(plain, theirs)
    for number in range(hits):
        raw = tuple(source.choice([0, 1, 7, BASE, BASE + 64, (1 << 64) - 2, 4096]) for _ in range(6))
        registers = {name: 11 + 8 * at for at, name in enumerate(PT_REGS)}
        frame = Frame(registers, raw, source.choice([0, 5, (1 << 64) - 2]), b"", 64, number)
        ours.numbers["now"] = theirs.numbers["now"] = 5_000 + number
        for machine in machines:
            machine.enter(frame)
            if handler.exit is not None:
                machine.leave(frame)
    plan = Plan((PlannedProbe(kind, "x", ()),), (Site(0, "x", *place[:1], address=64, offset=int("mid" in place)),), (),
                (), (), handler.events)  # fmt: skip
    events = Decoder(handler.events, ["x"]).decode(ours.records)
    with Recorder(str(path), limit) as recorder:
        recorder.begin(plan, {"probes": [[kind, ["x"]]]})
        user = recorder.take(events)
    return plain, machines[1], user, recorder


def probe(case):
    kind, *rest = case.around.split()
    source = HandlerSource("h", case.source, "script.py", 10, 4, EVERYTHING)
    return Probe(kind, ("x",), source, unsafe="unsafe" in rest, on_fault="fault" in rest)


def is_deep(case):
    return case.around.split()[0] in ("kprobe", "kretprobe") and "mid" not in case.around


@pytest.mark.parametrize("case", [case for case in golden() if is_deep(case)], ids=lambda case: case.name)
def test_a_replay_comes_to_what_was_seen(case, tmp_path):
    path = tmp_path / "recording"
    plain, machine, user, _ = recorded(case, path)
    replay = Replay([probe(case)], load_recording(str(path)), Universe())
    assert [event.fields for event in replay.events] == [event.fields for event in user]
    assert [event.text for event in replay.events] == [event.text for event in user]
    for layout in plain.maps:
        found = replay.read(layout.name)
        assert found == read_map(machine.read_map(layout.name), layout)
    assert sum(one.faults for one in replay.stats) == machine.counters.faults
    assert replay.notes == []


CHAIN = next(case for case in golden() if "d_name" in case.source and is_deep(case))


def test_a_recording_is_private_and_ends_at_its_limit(tmp_path):
    path = tmp_path / "recording"
    *_, recorder = recorded(CHAIN, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not recorder.full
    *_, recorder = recorded(CHAIN, path, limit=1)
    assert recorder.full
    assert load_recording(str(path)).full
    assert any("limit" in note for note in Replay([probe(CHAIN)], load_recording(str(path)), Universe()).notes)


def test_a_recording_that_never_began_leaves_no_file(tmp_path):
    with Recorder(str(tmp_path / "x")):
        pass
    assert not (tmp_path / "x").exists()
    with pytest.raises(SyscallError, match="can't write"):
        Recorder(str(tmp_path / "none" / "x"))
    with pytest.raises(SyscallError, match="can't read"):
        load_recording(str(tmp_path / "x"))


def test_what_a_changed_handler_asks_for_and_was_not_recorded_is_told(tmp_path):
    path = str(tmp_path / "recording")
    recorded(CHAIN, path)
    changed = HandlerSource(
        "h", "def h(file):\n    emit(file.f_mode, regs.di, cgroup)\n", "script.py", 10, 4, EVERYTHING
    )
    kind = CHAIN.around.split()[0]
    replay = Replay([Probe(kind, ("x",), changed)], load_recording(path), Universe())
    assert len(replay.events) == 4
    assert any(note.startswith("hits that read memory") for note in replay.notes)
    assert "not recorded, and 0 here: cgroup()" in replay.notes
    with pytest.raises(UsageError, match="none of the script's probes was recorded"):
        Replay([Probe(kind, ("y",), changed)], load_recording(path), Universe())


def test_recorded_hits_are_frames_for_plain_python(tmp_path):
    path = str(tmp_path / "recording")
    _, _, user, _ = recorded(CHAIN, path)
    frames = load(path)
    for frame in frames:
        frame.types, frame.prototype = Universe(), Universe().function(CHAIN.around.split()[1])
        frame.arguments = tuple(frame.arguments)
    assert [frame.site for frame in frames] == ["x"] * 4
    assert [event.fields for event in run(probe(CHAIN), *frames).events] == [event.fields for event in user]


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    path = tmp_path_factory.mktemp("recordings") / "valid"
    recorded(CHAIN, path)
    return path.read_bytes()


def survives(path):
    """Load and replay; only errors with a message may come out."""
    with contextlib.suppress(KprobesError):
        Replay([probe(CHAIN)], load_recording(str(path)), Universe())
        load(str(path))


def blocks(content):
    """Return the blocks of a recording as (kind, content)."""
    at, found = 12, []
    while at < len(content):
        kind, _, stored, _ = struct.unpack_from("<4I", content, at)
        found.append((kind, bytearray(zlib.decompress(content[at + 16 : at + 16 + stored]))))
        at += 16 + stored
    return found


def packed(kind, content):
    stored = zlib.compress(bytes(content), 1)
    return struct.pack("<4I", kind, len(content), len(stored), zlib.crc32(stored)) + stored


@settings(max_examples=200)
@given(data=st.data())
def test_a_damaged_recording_gives_a_message(data, valid, tmp_path_factory):
    """Also where the checksums are those of what was damaged."""
    found = blocks(valid)
    for _ in range(data.draw(st.integers(1, 3))):
        _, content = data.draw(st.sampled_from(found))
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    whole = bytearray(valid[:12] + b"".join(packed(*one) for one in found))
    if data.draw(st.booleans()):
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(whole[: data.draw(st.integers(len(whole) // 2, len(whole)))])
    survives(path)


def test_what_is_no_recording_is_told_so(tmp_path, valid):
    path = tmp_path / "x"
    for content in (b"", b"KPRECORD", b"\x7fELF" * 100, valid[:8] + b"\x09\0\0\0" + valid[12:]):
        path.write_bytes(content)
        with pytest.raises(FormatError):
            load_recording(str(path))
