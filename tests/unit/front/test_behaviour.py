"""What compiled handlers do, seen in the interpreter: memory, strings, state, calls in flight."""

import struct

import pytest

from front.cases import GOLDEN, compile_text, read_cases
from front.dry import Dry
from kprobes.compiler.ir.verify import verify
from kprobes.model.mapspec import HashMap, String, Unsigned

FILE, DENTRY, PARENT, NAME, TASK, BUF = (0xFFFF_8880_0000_1000 + 0x1000 * index for index in range(6))
USER = 0x7F00_0000_1000


def memory():
    """Return a file with a dentry below another one, a task, and a string of the process."""
    file = struct.pack("<8xQQQIIq", 0, DENTRY, 0, 0o101, 3, -5).ljust(96, b"\0")
    dentry = struct.pack("<QIIQ", PARENT, 0, 6, NAME) + b"short\0".ljust(40, b"\0")
    parent = struct.pack("<Q", PARENT).ljust(64, b"\0")
    task = struct.pack("<i4x16sQ?3xI", 77, b"worker/0", TASK, 2, 128).ljust(256, b"\0")
    return {
        ("kernel", FILE): file,
        ("kernel", DENTRY): dentry,
        ("kernel", PARENT): parent,
        ("kernel", TASK): task,
        ("kernel", NAME): b"passwd\0" + bytes(64),
        ("user", USER): b"/etc/passwd\0" + bytes(512),
    }


def dry(text, around="kprobe vfs_read", **names):
    return Dry(compile_text(text, around, **names), memory=memory(), numbers={"task": TASK, "pid": 42, "now": 1000})


def test_fields_are_read_through_pointers_with_their_signs():
    text = "def h(file):\n    emit(file.f_flags, file.f_pos, name=file.f_path.dentry.d_name.name.string())\n"
    assert dry(text).hit(FILE) == [{"file.f_flags": 0o101, "file.f_pos": -5, "name": "passwd"}]


def test_a_bad_pointer_reads_as_zero_and_counts_one_fault():
    run = dry("def h(file):\n    emit(a=file.f_path.dentry.d_name.len, b=file.f_pos)\n")
    assert run.hit(0) == [{"a": 0, "b": 0}]
    assert run.faults == 1
    run.hit(FILE)
    assert run.faults == 1


def test_strings_are_cut_to_their_size_and_read_where_the_address_says():
    text = (
        "def h(file, buf):\n    emit(a=buf.string(5), b=string(int(buf), 64), c=file.f_path.dentry.d_iname, d=comm())\n"
    )
    sent = dry(text).hit(FILE, USER)
    assert sent == [{"a": "/etc", "b": "/etc/passwd", "c": "short", "d": "python"}]


def test_strings_compare_by_their_content():
    text = """def h(file, buf):
    name = file.f_path.dentry.d_name.name.string()
    emit(name == "passwd", name != "passwd", name.startswith("pass"), name in ("a", "passwd"),
         name == buf.string(), comm() == "python", not name)
"""
    assert list(dry(text).hit(FILE, USER)[0].values()) == [1, 0, 1, 1, 0, 1, 0]


def test_string_variables_take_what_was_assigned_last():
    text = """def h(file, buf):
    s = "none"
    t = comm()
    if file:
        s = buf.string(32)
    s, t = t, s
    emit(s, t)
"""
    run = dry(text)
    assert run.hit(FILE, USER) == [{"s": "python", "t": "/etc/passwd"}]
    assert run.hit(0, USER) == [{"s": "python", "t": "none"}]


def test_a_name_keeps_its_string_when_the_one_it_came_from_changes():
    text = """def h(buf):
    s = comm()
    t = s
    u = same(s)
    v = (s, pid)
    s = buf.string(16)
    emit(s, t, u, v[0])
"""
    run = dry(text)
    assert run.hit(0, USER) == [{"s": "/etc/passwd", "t": "python", "u": "python", "v[0]": "python"}]


def test_char_arrays_are_values_once_assigned():
    text = "def h():\n    name = current.comm\n    emit(name, current.exit, current.state == TASK_DEAD, task().pid)\n"
    assert list(dry(text).hit()[0].values()) == ["worker/0", 1, 1, 77]


def test_bit_fields_are_taken_out_of_their_bytes():
    at = 0xFFFF_0000_0000_0000
    first = (5 << 0) | (0b10110 << 3) | (0xAB << 8)
    flags = struct.pack("<I4xQ", first, (0x12_3456_789A) | (1 << 40))
    whole = (0x7F << 0) | (0x2345_6789 << 9) | (0x1234_5678 << 42)
    packed = whole.to_bytes(9, "little")
    run = Dry(
        compile_text(
            "def h(flags, packed):\n    emit(flags.kind, flags.level, flags.wide, flags.on, flags.low, packed.before,"
            " packed.across, packed.last)\n",
            "kprobe do_flags",
        ),
        memory={("kernel", at): flags, ("kernel", at + 0x100): packed},
    )
    values = list(run.hit(at, at + 0x100)[0].values())
    assert values == [5, -10, 0x12_3456_789A, 1, 0xAB, 0x7F, 0x2345_6789, 0x1234_5678]
    assert run.faults == 0


def test_pointers_walk_lists_until_they_end():
    text = "def h(file):\n    emit(n=depth(file.f_path.dentry))\n"
    run = dry(text)
    assert run.hit(FILE) == [{"n": 1}]


def test_a_while_that_does_not_end_is_stopped_and_counted():
    run = dry("def h():\n    n = 0\n    while True:\n        n += 1\n    emit(n)\n")
    assert run.hit() == [{"n": 1024}]
    assert run.faults == 1


def test_else_of_a_loop_runs_unless_it_was_left():
    run = dry("""def h(count):
    for i in range(4):
        if i == count:
            break
    else:
        emit(a=1)
    emit(b=i)
""")
    assert run.hit(0, 0, 2) == [{"b": 2}]
    assert run.hit(0, 0, 9) == [{"a": 1}, {"b": 3}]


def test_what_crosses_the_yield_is_kept_for_each_call():
    text = """def h(file, count):
    if count == 0:
        return
    name = comm()
    twice = count * 2
    ret = yield
    emit(name, twice, ret, file.f_flags)
"""
    run = dry(text, "kretprobe vfs_read")
    run.hit(FILE, 0, 5, call=1)
    run.world.texts["comm"] = b"inner"
    run.hit(FILE, 0, 7, call=2)  # the function called itself
    run.hit(FILE, 0, 0, call=3)
    assert run.leave(-1, call=3) == []
    assert run.leave(70, call=2) == [{"name": "inner", "twice": 14, "ret": 70, "file.f_flags": 0o101}]
    assert run.leave(-2, call=1) == [{"name": "python", "twice": 10, "ret": -2, "file.f_flags": 0o101}]
    assert run.leave(5, call=1) == []


def test_parameters_of_a_return_probe_are_those_of_the_entry():
    run = dry("def h(count):\n    if retval < count:\n        emit(count, retval)\n", "kretprobe vfs_read")
    run.hit(0, 0, 10)
    assert run.leave(-5) == [{"count": 10, "retval": -5}]


def test_counters_and_lookups():
    run = dry("""def h(count):
    opened[count] += 2
    opened[count] -= 1
    emit(opened[count], opened.get(99, 5), opened.get(count, 5), count in opened, 99 in opened, opened.pop(7, 3))
    if count == 3:
        del opened[count]
""")
    assert list(run.hit(0, 0, 1)[0].values()) == [1, 5, 1, 1, 0, 3]
    assert list(run.hit(0, 0, 1)[0].values()) == [2, 5, 2, 1, 0, 3]
    run.hit(0, 0, 3)
    assert run.map("opened") == [(struct.pack("<q", 1), struct.pack("<q", 2))]


def test_keys_and_values_of_several_fields():
    spec = HashMap("pairs", key=(Unsigned(4), str), value=(int, String(8)))
    run = dry(
        """def h(file, count):
    pairs[(count, comm())] = (file.f_pos, file.f_path.dentry.d_name.name.string())
    pos, name = pairs[(count, "python")]
    emit(pos, name)
""",
        pairs=spec,
    )
    assert run.hit(FILE, 0, 9) == [{"pos": -5, "name": "passwd"}]
    [(key, _)] = run.map("pairs")
    assert key[:4] == struct.pack("<I", 9)
    assert key[4:10] == b"python"


def test_a_key_longer_than_its_field_is_cut_like_any_string():
    run = dry("def h(buf):\n    by_comm.add(by=buf.string())\n    by_comm.add(by=buf.string(3))\n")
    run.hit(0, USER)
    assert sorted(key.rstrip(b"\0") for key, _ in run.map("by_comm")) == [b"/e", b"/etc/passwd"]


def test_log_is_put_together_from_its_template():
    text = """def h(file, count):
    log(f"{comm} {{{count:>4}}} {file.f_pos:+d} {file.f_path.dentry.d_iname!r} {PATTERN}")
"""
    run = dry(text)
    run.hit(FILE, 0, 7)
    assert run.lines() == ["python {   7} -5 'short' bash"]


def test_records_of_tracepoints():
    record = bytearray(200)
    struct.pack_into("<16s", record, 8, b"swapper")
    struct.pack_into("<i4xq", record, 24, -3, -4)
    struct.pack_into("<I", record, 40, 150 | 6 << 16)
    struct.pack_into("<6Q", record, 48, *range(10, 16))
    struct.pack_into("<Qi", record, 96, USER, 3)
    record[150:156] = b"/proc\0"
    text = """def h(prev_comm, prev_pid, prev_state, filename, args, ptr, fd):
    emit(prev_comm, prev_pid, prev_state, filename, args[2], ptr.string(), fd)
"""
    run = dry(text, "tracepoint sched:sched_switch")
    assert list(run.hit(record=bytes(record))[0].values()) == ["swapper", -3, -4, "/proc", 12, "/etc/passwd", 3]


def test_writing_registers_and_results():
    text = """def h(count):
    regs.dx = count * 2
    if count > 5:
        return_from_function(-1)
    else:
        skip()
"""
    run = dry(text, "kprobe vfs_read unsafe")
    run.hit(0, 0, 6)
    run.hit(0, 0, 1)
    written = [
        (what, name, value & (1 << 64) - 1 if value is not None else 0) for what, name, value in run.world.written
    ]
    assert written[:2] == [("register", "dx", 12), ("return", "", (1 << 64) - 1)]
    assert [what for what, _, _ in written[2:]] == ["register", "skip"]


def test_network_order():
    at = 0xFFFF_0000_0000_0000
    text = "def h(sk):\n    emit(ntohs(sk.dport), ntohl(sk.dport), htonl(0x01020304))\n"
    sock = struct.pack(">HHH", 443, 80, 2).ljust(32, b"\0")
    run = Dry(compile_text(text, "kprobe do_flags"), memory={("kernel", at): sock})
    assert list(run.hit(0, 0, 0, at)[0].values()) == [443, 0x01BB_0000, 0x0403_0201]


def test_helpers_return_from_where_they_are():
    run = dry("def h(count):\n    emit(first_above(count), clamp(count), clamp(count, high=3), pair(count)[1])\n")
    assert list(run.hit(0, 0, 10)[0].values()) == [4, 10, 3, 9]
    assert list(run.hit(0, 0, 500)[0].values()) == [-1, 100, 3, 499]


@pytest.mark.parametrize(
    "path", [p for p in sorted(GOLDEN.glob("*.golden")) if not p.stem.startswith("errors")], ids=lambda p: p.stem
)
def test_the_verifier_accepts_what_the_front_makes(path):
    for case in read_cases(path):
        verify(compile_text(case.source, case.around))
