"""What C types mean in handlers: annotations, struct classes, casts, arrays, variables, names of values."""

import struct

import pytest

from front.cases import compile_text, surroundings
from front.dry import Dry
from front.universe import NAMES, Header, Inner, Key, Mode
from kprobes.compiler.front.compile import compile_handler
from kprobes.errors import CompileError, SymbolNotFoundError, UsageError
from kprobes.events.aggregate import read_map
from kprobes.events.decode import Decoder
from kprobes.events.value import with_names
from kprobes.frozen import replace
from kprobes.model.cwords import u8, u32
from kprobes.model.mapspec import Count, HashMap
from kprobes.model.probe import HandlerSource, Probe
from kprobes.model.structs import shape_of
from kprobes.planner.cache import _ingredients
from kprobes.symbols.variables import VariablePlace

AT, NEXT, PATH = 0x7F00_0000_1000, 0x7F00_0000_2000, 0x7F00_0000_3000
LAYOUT = struct.Struct("<IH6s4xQQH4s2xIBxH4sH4s6x")
FIRST = LAYOUT.pack(
    7, 300, b"first", NEXT, PATH, 11, b"\1\2\3\4", 4096, 0b10110_101, 21, b"\5\6\7\10", 22, b"\11\12\13\14"
)
SECOND = LAYOUT.pack(8, 9, b"second", 0, 0, 0, bytes(4), 5, 0, 0, bytes(4), 0, bytes(4))
MEMORY = {("user", AT): FIRST, ("user", NEXT): SECOND, ("user", PATH): b"/etc/passwd\0" + bytes(64)}


def sent(text, *arguments, around="uprobe", memory=None, variables=None, **world):
    """Return the events of one hit as Python has them, and how many hits had faults."""
    source = HandlerSource("h", text, "script.py", 1, 0, NAMES)
    made = compile_handler(source, replace(surroundings(around), variables=variables))
    run = Dry(made, memory=MEMORY | (memory or {}), **world)
    run.hit(*arguments)
    return Decoder(made.events, ["place"]).decode(run.world.records), run.faults


def test_the_struct_of_these_tests_is_laid_out_as_c_does():
    assert LAYOUT.size == shape_of(Header).size


def test_annotated_parameters_are_the_arguments_in_order():
    (event,), faults = sent(
        "def h(path: cstr, low: u8, signed: i16, header: Header, n: str):\n"
        "    emit(path, low, signed, header.length, header.next.name, n, n == path)\n",
        PATH, 0x1FF, 0xFFFE, AT, PATH,
    )  # fmt: skip
    assert list(event) == ["/etc/passwd", 255, -2, 300, "secon", "/etc/passwd", True]  # char[6] has room for five
    assert faults == 0


def test_a_string_parameter_can_be_read_at_another_length_and_tested():
    (event,), _ = sent("def h(p: cstr):\n    emit(p.string(5), p.startswith('/etc'), bool(p), hex(p))\n", PATH)
    assert list(event) == ["/etc", True, True, PATH]


def test_regs_take_no_number_among_annotated_parameters():
    (event,), _ = sent("def h(regs, a: u32, b: u32):\n    emit(a, b)\n", 5, 6)
    assert list(event) == [5, 6]


def test_arguments_behind_the_annotated_ones_are_there_by_number():
    (event,), _ = sent("def h(a: u8):\n    emit(a, arg(3))\n", 1, 2, 3)
    assert list(event) == [1, 3]


def test_an_annotation_changes_no_argument_s_place():
    (event,), _ = sent("def h(a: u64, c: u8):\n    emit(a, c)\n", 1, 2, 3, around="kprobe mixed")
    assert event.a == 1


def test_bit_fields_arrays_and_nested_structs_of_a_class():
    events, faults = sent(
        "def h(p: Header):\n"
        "    emit(p.low, p.high, p.inner.code, p.inner.bytes[3])\n"
        "    emit(p.items[1].code, p.items[1].bytes[0], p.name, p.path)\n",
        AT,
    )
    assert [list(event) for event in events] == [[5, -10, 11, 4], [22, 9, "first", "/etc/passwd"]]
    assert faults == 0


@pytest.mark.parametrize(
    ("index", "values", "faults"),
    [(0, [1, 21], 0), (1, [2, 22], 0), (2, [3, 0], 1), (4, [0, 0], 1), (-1, [0, 0], 1), (1 << 40, [0, 0], 1)],
)
def test_an_index_beyond_an_array_reads_zero_and_counts_as_a_fault(index, values, faults):
    text = "def h(p: Header, i: i64):\n    emit(p.inner.bytes[i], p.items[i].code)\n"
    (event,), counted = sent(text, AT, index & (1 << 64) - 1)
    assert (list(event), counted) == (values, faults)


def test_a_fault_anywhere_in_a_chain_is_counted_once_and_gives_zeros():
    text = "def h(p: Header):\n    q = p.next.next\n    emit(q.length, p.next.next.name, q.inner.bytes[2], q.low)\n"
    (event,), faults = sent(text, AT)
    assert (list(event), faults) == ([0, "", 0, 0], 1)


def test_casts_take_words_classes_and_their_names():
    text = """def h():
    p = arg(1).cast(Header)
    emit(p.length, cast(arg(1), "Header *").next.length, cast(p, u16[4])[2], p.cast("u32 *")[0], u8(arg(2)),
         arg(2).cast(i8), cast(arg(2), u16))
"""
    (event,), _ = sent(text, AT, 0xFFF0)
    assert list(event) == [300, 9, 300, 7, 0xF0, -16, 0xFFF0]


def test_container_of_undoes_naming_a_member():
    text = """def h(p: Header):
    inside = hex(p) + offsetof(Header, "items[1].bytes")
    emit(container_of(inside, Header, "items[1].bytes").length, container_of(inside, "Header", "items[1].bytes").magic,
         sizeof(p.inner), sizeof("u16"))
"""
    (event,), _ = sent(text, AT)
    assert list(event) == [300, 7, 6, 2]


def test_a_union_s_members_begin_at_its_start():
    (event,), _ = sent("def h(e: ptr[Either]):\n    emit(e.number & 255, e.header.name)\n", AT)
    assert list(event) == [7, "first"]


def test_values_of_enumerations_print_by_name_and_compute_as_numbers():
    (event,), _ = sent("def h(p: Header, m: Mode, k: Kind):\n    emit(p.kind, m, k, n=p.kind + 1)\n", AT, 9, 77)
    assert [str(value) for value in event] == ["LARGE", "READ|SYNC", "77", "4097"]
    assert event["p.kind"] == 4096
    told = with_names(event.fields, lambda value: value)
    assert told == {"p.kind": 4096, "p.kind_name": "LARGE", "m": 9, "m_name": "READ|SYNC", "k": 77, "n": 4097}


def test_names_of_several_bits_win_and_unnamed_bits_are_shown():
    (event,), _ = sent("def h(m: u32):\n    emit(flags(m, Mode), Mode(m), flags(m & 0, Mode))\n", 0x13)
    assert [str(value) for value in event] == ["BOTH|0x10", "BOTH|0x10", "0x0"]
    assert f"{event['m']:#x} {event['m']:>12}" == "0x13    BOTH|0x10"


def test_names_of_a_c_enumeration_come_from_the_types():
    memory = {("kernel", AT): bytes(36) + struct.pack("<I", 128) + bytes(216)}
    text = "def h(task):\n    emit(task.state, task.state == TASK_DEAD)\n"
    (event,), _ = sent(text, 0, 0, AT, around="kprobe do_flags", memory=memory)
    assert str(event["task.state"]) == "TASK_DEAD"


def test_a_variable_keeps_the_names_of_what_was_assigned():
    (event,), _ = sent("def h(m: Mode):\n    x = 0\n    if m:\n        x = m\n    emit(x, y=x + 1)\n", 2)
    assert [str(value) for value in event] == ["WRITE", "3"]


def test_a_log_line_has_the_names():
    (event,), _ = sent('def h(m: Mode):\n    log(f"opened {m} {m:x} {m:>6}")\n', 3)
    assert event.text == "opened BOTH 3   BOTH"


def test_all_members_of_a_struct_are_sent_by_name():
    first, _ = sent("def h(p: Header):\n    emit(**p.next)\n", AT)
    assert first[0].fields["length"] == 9
    assert list(first[0].fields)[:5] == ["magic", "length", "name", "next", "path"]
    assert "inner.bytes[3]" in first[0].fields
    second, _ = sent("def h(p: Header):\n    emit(p.inner)\n", AT)
    assert second[0].fields == {"p.inner.code": 11, **{f"p.inner.bytes[{n}]": n + 1 for n in range(4)}}


def test_a_struct_made_in_a_handler_cuts_its_members_as_c_does():
    text = """def h(p: Header):
    one = Key(-1, p.name, p)
    other = Key(at=None, name="x", pid=2) if p else one
    emit(one, other)
"""
    (event,), _ = sent(text, AT)
    assert list(event) == [0xFFFF_FFFF, "first", AT, 2, "x", 0]


@pytest.mark.parametrize("spelling", ["*args", "args", "args()", "*args()", "**args", "**everything"])
def test_all_parameters_at_once(spelling):
    parameters = "**everything" if "everything" in spelling else "p: cstr, m: Mode"
    around = "kprobe do_sys_open" if "everything" in spelling else "uprobe"
    events, _ = sent(f"def h({parameters}):\n    emit({spelling})\n", PATH, 2, around=around)
    assert list(events[0].fields) == (["dfd", "filename", "flags", "mode"] if "every" in spelling else ["p", "m"])


class Variables:
    """Two variables of a kernel."""

    def __init__(self, *, relative=False):
        self.relative = relative

    def find(self, name):
        known = {
            "init_task": 0xFFFF_0000, "jiffies": 0xFFFF_1000, "__per_cpu_offset": 0xFFFF_2000,
            "nr_cpu_ids": 0xFFFF_3000, "runqueue": 0x40, "counter": 0x100,
        }  # fmt: skip
        if name not in known:
            raise SymbolNotFoundError(name, where="this test", thing="symbol")
        return VariablePlace(known[name], self.relative)


def kernel_memory():
    second = struct.pack("<HHH", 1, 2, 3).ljust(32, b"\0")
    return {
        ("kernel", 0xFFFF_0000): struct.pack("<i4x16s", 0, b"swapper/0").ljust(256, b"\0"),
        ("kernel", 0xFFFF_1000): struct.pack("<q", -5),
        ("kernel", 0xFFFF_2000): struct.pack("<QQ", 0xA000, 0xB000) + bytes(64),
        ("kernel", 0xFFFF_3000): struct.pack("<I", 2),
        ("kernel", 0xA040): struct.pack("<HHH", 7, 8, 9).ljust(32, b"\0"),
        ("kernel", 0xB040): second,
    }


def test_variables_of_a_kernel_have_the_types_that_are_known_or_given():
    text = 'def h():\n    emit(var("init_task").comm, var("jiffies"), var("jiffies", u8), hex(address_of("jiffies")))\n'
    (event,), faults = sent(text, around="kprobe vfs_read", memory=kernel_memory(), variables=Variables())
    assert list(event) == ["swapper/0", -5, 251, 0xFFFF_1000]
    assert list(event.fields)[:2] == ["init_task.comm", "jiffies"]
    assert faults == 0


@pytest.mark.parametrize(
    ("cpu", "values", "faults"), [(0, [8, 8, 2], 0), (1, [2, 8, 2], 0), (2, [0, 8, 2], 1), (-1, [0, 8, 2], 1)]
)
def test_per_cpu_variables_of_this_and_of_other_cpus(cpu, values, faults):
    text = """def h(count: i64):
    emit(percpu("runqueue", cpu=count).sport, percpu("runqueue").sport, percpu("runqueue", "struct sock", 1).sport)
"""
    (event,), counted = sent(text, 0, 0, cpu & (1 << 64) - 1, around="kprobe vfs_read", memory=kernel_memory(),
                             variables=Variables(), numbers={"cpu": 0})  # fmt: skip
    assert (list(event), counted) == (values, faults)


def test_variables_of_a_program_lie_at_a_distance_from_the_probe():
    source = HandlerSource("h", 'def h():\n    yield\n    emit(var("counter", u32))\n', "script.py", 1, 0, NAMES)
    around = replace(surroundings("uretprobe"), variables=Variables(relative=True))
    made = compile_handler(source, around)
    run = Dry(made, memory={("user", 0x5100): b"\7\0\0\0"})
    run.hit(function=0x5000)
    run.leave(function=0x9999)  # where it returns to says nothing
    assert run.events == [{"counter": 7}]


def test_a_symbol_that_is_not_there_is_told_at_its_place():
    with pytest.raises(CompileError, match="no symbol 'nix'") as caught:
        sent('def h():\n    emit(var("nix", u8))\n', variables=Variables())
    assert (caught.value.line, bool(caught.value.hint)) == (2, True)


def test_function_pointers_are_sent_as_symbols():
    made = compile_text("def h(file):\n    emit(file.f_op)\n")
    assert [field.kind for field in made.events[0].fields] == ["symbol"]


def test_plans_are_told_apart_by_the_classes_that_handlers_name():
    def content(name, thing):
        source = HandlerSource("h", f"def h(p: {name}):\n    emit(p)\n", "f.py", 1, 0, {name: thing})
        return "".join(_ingredients([Probe("uprobe", ("x",), source)]))

    assert content("T", NAMES["Header"]) != content("T", NAMES["Key"])
    assert content("T", NAMES["Mode"]) != content("T", NAMES["Kind"])
    assert content("T", NAMES["u8"]) != content("T", NAMES["u16"])


def test_text_in_an_annotation_names_what_python_has_first():
    (event,), _ = sent(
        'def h(p: "Header *", n: "u8", q: "ptr[Header]"):\n    emit(p.length, n, q.magic)\n', AT, 257, AT
    )
    assert list(event) == [300, 1, 7]


def test_members_of_types_that_a_program_lacks_are_refused_where_they_are_used():
    from kprobes.model.structs import struct as struct_class

    @struct_class
    class Odd:
        file: "struct nix *"
        n: u8

    source = HandlerSource("h", "def h(p: Odd):\n    emit(p.n, p.file)\n", "script.py", 1, 0, {**NAMES, "Odd": Odd})
    with pytest.raises(CompileError, match="struct nix"):
        compile_handler(source, surroundings("uprobe"))
    with pytest.raises(UsageError):

        @struct_class
        class Empty:
            pass


MAPS = """def h(p: Header, mode: Mode, n: u16):
    key = Key(n, p.name, p)
    seen[key] = p.inner
    last = seen[key]
    emit(last.code, last.bytes[3], last)
    modes[mode] += 1
    by_mode.add(by=mode)
    states[n] = mode
    emit(states[n], seen[Key(9, "none", None)].code)
"""


def test_structs_and_enumerations_are_keys_and_values_of_maps():
    maps = {
        "seen": HashMap("seen", key=Key, value=Inner),
        "modes": HashMap("modes", key=Mode, value=u32),
        "by_mode": Count("by_mode", by=Mode),
        "states": HashMap("states", key=u8, value=Mode),
    }
    source = HandlerSource("h", MAPS, "script.py", 1, 0, {**NAMES, **maps})
    made = compile_handler(source, surroundings("uprobe"))
    run = Dry(made, memory=MEMORY)
    run.hit(AT, 3, 258)
    run.hit(AT, 3, 259)
    run.hit(AT, 8, 259)
    events = Decoder(made.events, ["place"]).decode(run.world.records)
    assert list(events[0]) == [11, 4, 11, 1, 2, 3, 4]
    assert [str(one["states[n]"]) for one in events[1::2]] == ["BOTH", "BOTH", "SYNC"]
    read = {one.name: read_map(run.map(one.name), one) for one in made.maps}
    assert read["seen"] == {(258, "first", AT): (11, 1, 2, 3, 4), (259, "first", AT): (11, 1, 2, 3, 4)}
    key, value = next(iter(read["seen"].items()))
    assert (key.pid, key.name, key.at, value.code, value.bytes_3) == (258, "first", AT, 11, 4)
    assert {str(mode): count for mode, count in read["modes"].items()} == {"BOTH": 2, "SYNC": 1}
    assert str(read["by_mode"]) == "BOTH 2\nSYNC 1"
    assert {number: str(mode) for number, mode in read["states"].items()} == {2: "BOTH", 3: "SYNC"}


def test_plans_are_told_apart_by_the_structs_that_their_maps_hold():
    def content(cls):
        source = HandlerSource("h", "def h():\n    m.add(by=1)\n", "f.py", 1, 0, {"m": Count("m", by=cls)})
        return "".join(_ingredients([Probe("uprobe", ("x",), source)]))

    assert content(NAMES["Inner"]) != content(NAMES["Key"])


def test_errors_and_addresses_are_shown_by_name():
    (event,), _ = sent(
        "def h(ret: i32, peer: u32):\n    emit(errname(ret), errname(ret + 3), ipv4(peer))\n", -2, 0x0100007F
    )
    assert [str(value) for value in event] == ["ENOENT", "1", "127.0.0.1"]
    assert event["ret"] == -2
