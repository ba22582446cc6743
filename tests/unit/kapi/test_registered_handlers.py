"""Handlers as the kernel's interface has them: what they compile to, and how mistakes in them are told."""

from __future__ import annotations

import errno

import pytest
from agree.universe import Types
from front.dry import Dry

import kprobes
from kprobes import (
    Jprobe,
    Kprobe,
    Kretprobe,
    Setting,
    arg,
    emit,
    kallsyms_lookup_name,
    kprobe,
    pr_info,
    printk,
    register_kprobe,
    regs_return_value,
    struct,
    u8,
    u64,
)
from kprobes.compiler.front.compile import Surroundings, compile_handler
from kprobes.errors import CompileError, RegistrationError
from kprobes.kapi.handlers import Spot, probes_of
from kprobes.model.ctype import Function, Parameter
from kprobes.model.ctype import Int as CInt
from kprobes.planner.settings import with_settings
from kprobes.testing import Frame, run

LONG = CInt("long", 8, True)
WORK = Function("work", (Parameter("a", LONG), Parameter("b", LONG)), LONG)
PROCESS, KERNEL = Spot("work", native=True), Spot("work", native=False, returns_to="ip")


@struct
class Kept:
    stamp: u64
    small: u8


def compiled(thing, spot=PROCESS, number=0):
    probe = probes_of(thing, spot)[number]
    around = Surroundings(
        kind=probe.kind,
        types=Types(),
        prototype=WORK,
        unsafe=probe.unsafe,
        steps=spot.native and not probe.on_fault,
        on_fault=probe.on_fault,
    )
    return compile_handler(probe.handler, around)


def pre(p, regs):
    pr_info(f"{p.symbol_name}+{p.offset:#x} {p.addr:#x} {regs.di}")
    return 0


def post(p, regs, flags):
    emit(after=regs.rax, flags=flags)


def skips_big(p, regs):
    if regs.di > 100:
        return 1
    emit(seen=regs.di)
    return 0


def entry_handler(ri, regs):
    if regs.di == 100:
        return 1
    ri.data.stamp = regs.di
    ri.data.small = regs.di
    return None


def handler(ri, regs):
    emit(kept=ri.data.stamp, small=ri.data.small, ret=regs_return_value(regs), name=ri.rp.kp.symbol_name)


def test_before_and_behind_the_instruction():
    made = Dry(compiled(Kprobe(symbol_name="work", pre_handler=pre, post_handler=post)))
    made.hit(registers={"di": 7}, function=0x1000)
    made.leave(registers={"ax": 26})
    assert made.lines()[0] == "work+0x0 0x1000 7"
    assert made.events[1] == {"after": 26, "flags": 0}


def test_a_pre_handler_that_returns_something_leaves_the_instruction_out():
    made = Dry(compiled(Kprobe(symbol_name="work", pre_handler=skips_big, unsafe=True)))
    assert made.hit(registers={"di": 7}) == [{"seen": 7}]
    assert made.hit(registers={"di": 101}) == []
    assert [one[0] for one in made.world.written] == ["skip"]


@pytest.mark.parametrize(("spot", "hint"), [(PROCESS, "unsafe=True"), (KERNEL, "probe a process")])
def test_which_is_refused_where_it_can_not_be(spot, hint):
    with pytest.raises(CompileError, match="returns 1: ") as caught:
        compiled(Kprobe(symbol_name="work", pre_handler=skips_big), spot)
    (mistake,) = caught.value.mistakes
    assert mistake.source.strip() == "return 1"
    assert not mistake.calls
    assert hint in mistake.hint


def test_in_a_kernel_the_next_instruction_counts_only_behind_the_probed_one():
    spot = Spot("work", native=False, next_place="work+0x3", behind=3, stack_change=-8)
    thing = Kprobe(symbol_name="work", pre_handler=pre, post_handler=post)
    first, second = (Dry(compiled(thing, spot, number)) for number in (0, 1))
    first.hit(registers={"di": 7, "sp": 0x8000}, function=0x1000)
    (marks,) = (layout.name for layout in first.handler.maps)
    ((key, _),) = first.map(marks)
    assert int.from_bytes(key, "little") == 0x8000 - 8
    assert second.hit(registers={"sp": 0x8000 - 8, "ax": 1}, function=0x1003) == []


def test_what_an_entry_handler_keeps_is_there_at_the_return_in_the_width_of_its_class():
    made = Dry(compiled(Kretprobe(symbol_name="work", entry_handler=entry_handler, handler=handler, data_size=Kept)))
    made.hit(registers={"di": 0x1234})
    assert made.leave(registers={"ax": 5}) == [{"kept": 0x1234, "small": 0x34, "ret": 5, "name": "work"}]


def test_an_entry_handler_that_returns_something_has_the_return_not_looked_at():
    made = Dry(compiled(Kretprobe(symbol_name="work", entry_handler=entry_handler, handler=handler, data_size=Kept)))
    made.hit(registers={"di": 100})
    assert made.leave(registers={"ax": 5}) == []


def test_fields_by_any_name_where_the_size_is_a_number():
    made = Dry(compiled(Kretprobe(symbol_name="work", entry_handler=entry_handler, handler=handler, data_size=16)))
    made.hit(registers={"di": 0x1234})
    assert made.leave(registers={"ax": 5})[0]["small"] == 0x1234


@pytest.mark.parametrize("size", [0, 8])
def test_fields_that_there_is_no_room_for(size):
    thing = Kretprobe(symbol_name="work", entry_handler=entry_handler, handler=handler, data_size=size)
    with pytest.raises(CompileError, match="no room for ri.data" if not size else "take 16 bytes, and data_size is 8"):
        compiled(thing)


def reads_what_none_sets(ri, regs):
    emit(ri.data.stamp)


def test_a_field_that_is_never_set():
    with pytest.raises(CompileError, match=r"data\.stamp is read and never set"):
        compiled(Kretprobe(symbol_name="work", handler=reads_what_none_sets, data_size=Kept))


def sets_what_is_not_there(ri, regs):
    ri.data.stomp = 1


def test_a_field_that_the_class_has_not():
    with pytest.raises(CompileError, match="Kept has no member 'stomp'") as caught:
        compiled(Kretprobe(symbol_name="work", entry_handler=sets_what_is_not_there, data_size=Kept))
    assert caught.value.hint == "did you mean stamp?"


def test_the_return_address_comes_from_where_the_target_has_it():
    made = compiled(Kretprobe(symbol_name="work", handler=tells_return), KERNEL)
    assert Dry(made).machine is not None
    with pytest.raises(CompileError, match="the return address is not known at the entry"):
        compiled(Kretprobe(symbol_name="work", entry_handler=tells_return), KERNEL)


def tells_return(ri, regs):
    printk(f"{ri.ret_addr:#x}")


def entry_of_work(b, a):
    emit(a, b)
    return 0


def test_a_jprobe_has_the_parameters_of_the_function():
    made = Dry(compiled(Jprobe(symbol_name="work", entry=entry_of_work)))
    assert made.hit(1, 2) == [{"a": 1, "b": 2}]


def too_few(p):
    pass


def test_a_handler_with_other_parameters():
    with pytest.raises(CompileError, match="a pre_handler takes p, regs") as caught:
        probes_of(Kprobe(symbol_name="work", pre_handler=too_few), PROCESS)
    assert caught.value.hint == "write def too_few(p, regs): ..."
    assert caught.value.source == "def too_few(p):"


def registers_more(p, regs):
    if regs.di > 3:
        register_kprobe(p)
    return 0


def by_another():
    kprobes.disable_kprobe(0)


def disables(p, regs):
    by_another()


def looks_up(p, regs):
    emit(kallsyms_lookup_name("work"))


@pytest.mark.parametrize(
    ("function", "name", "calls"),
    [
        (registers_more, "register_kprobe", 0),
        (disables, "disable_kprobe", 1),
        (looks_up, "kallsyms_lookup_name", 0),
    ],
)
def test_what_only_the_controller_can_call_is_told_at_the_line_that_calls_it(function, name, calls):
    thing = Kprobe(symbol_name="work", pre_handler=function)
    with pytest.raises(CompileError, match=rf"{name}\(\) can't be called in a handler") as caught:
        compiled(thing)
    (mistake,) = caught.value.mistakes
    assert f"{name}(" in mistake.source
    assert len(mistake.calls) == calls
    with pytest.raises(CompileError, match=rf"{name}\(\) can't be called in a handler"):
        run(thing, Frame(registers={"di": 7}))


least = Setting("least", 3)


def reads_settings_and_registers():
    if arg(1) > least:
        register_kprobe(0)


def test_where_settings_are_given_it_is_left_to_the_compiler_to_tell():
    probe = kprobe("vfs_read")(reads_settings_and_registers)
    (changed,) = with_settings((probe,), {"least": 5})
    assert changed.settings == (("least", 5),)


def asks_p_for_more(p, regs):
    emit(p.adr)


def test_p_has_three_members():
    with pytest.raises(CompileError, match="p has no 'adr'") as caught:
        compiled(Kprobe(symbol_name="work", pre_handler=asks_p_for_more))
    assert "addr" in caught.value.hint


@pytest.mark.parametrize(
    ("thing", "name"),
    [
        (Kretprobe(symbol_name="work", handler=handler, data_size=4097), "E2BIG"),
        (Kretprobe(symbol_name="work", handler=handler, data_size=-1), "EINVAL"),
        (Kretprobe(symbol_name="work", handler=handler, data_size=3.5), "EINVAL"),
        (Kretprobe(kp=Kprobe(symbol_name="work", pre_handler=pre), handler=handler), "EINVAL"),
        (Jprobe(symbol_name="work"), "EINVAL"),
        (Jprobe(kp=Kprobe(symbol_name="work", post_handler=post), entry=entry_of_work), "EINVAL"),
    ],
)
def test_what_can_not_be_registered_anywhere(thing, name):
    with pytest.raises(RegistrationError) as caught:
        probes_of(thing, PROCESS)
    assert isinstance(caught.value, OSError)
    assert (caught.value.errno, caught.value.name) == (getattr(errno, name), name)
    assert caught.value.hint
    assert str(caught.value).endswith(f"({name})")


def test_a_fault_handler_is_for_processes():
    thing = Kprobe(symbol_name="work", fault_handler=fault)
    with pytest.raises(RegistrationError, match="a kernel runs no fault_handler") as caught:
        probes_of(thing, KERNEL)
    assert caught.value.name == "EOPNOTSUPP"


def fault(p, regs, trapnr):
    emit(trapnr)
    return 0


# In plain Python.


def test_handlers_run_in_plain_python():
    thing = Kprobe(symbol_name="work", pre_handler=pre, post_handler=post, fault_handler=fault)
    done = run(thing, Frame(registers={"di": 7}, after={"ax": 26}, function=0x1000))
    assert done.lines == ["work+0x0 0x1000 0x7"]
    assert done.events[1].fields == {"after": 26, "flags": 0}
    assert run(thing, Frame(fault_signal=8)).events[0].fields == {"trapnr": 0}


def test_what_is_kept_for_a_call_in_plain_python():
    thing = Kretprobe(symbol_name="work", entry_handler=entry_handler, handler=handler, data_size=Kept)
    frames = [Frame(registers={"di": number}, after={"ax": 5}) for number in (0x1234, 100)]
    (event,) = run(thing, *frames).events
    assert event.fields == {"kept": 0x1234, "small": 0x34, "ret": 5, "name": "work"}


def test_instructions_left_out_in_plain_python():
    thing = Kprobe(symbol_name="work", pre_handler=skips_big, unsafe=True)
    assert run(thing, Frame(registers={"di": 101})).written == [("skip", "", 0)]
