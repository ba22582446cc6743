"""The kernel's own calls on a process: each rule of registering, of handlers, of several probes at one place."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from threading import Barrier, Thread

import pytest

from kprobes import (
    KPROBE_FLAG_DISABLED,
    KPROBE_FLAG_GONE,
    KPROBE_FLAG_ON_FUNC_ENTRY,
    KPROBE_FLAG_OPTIMIZED,
    Count,
    HandlerWarning,
    Jprobe,
    Kprobe,
    Kretprobe,
    Module,
    Process,
    RegistrationError,
    arm_all_kprobes,
    attach,
    comm,
    disable_kprobe,
    disable_kretprobe,
    disarm_all_kprobes,
    dump_stack,
    enable_kprobe,
    enable_kretprobe,
    get_kretprobe,
    instruction_pointer,
    kallsyms_lookup_name,
    kernel_stack_pointer,
    kmsg,
    pr_info,
    printk,
    register_jprobe,
    register_kprobe,
    register_kprobes,
    register_kretprobe,
    regs_get_kernel_argument,
    regs_return_value,
    string,
    struct,
    u64,
    unregister_jprobe,
    unregister_kprobe,
    unregister_kprobes,
    unregister_kretprobe,
)
from kprobes.errors import CompileError, TargetError
from kprobes.model.listed import State
from kprobes.model.probe import Probe

pytestmark = pytest.mark.process
EXAMPLES = Path(__file__).parents[3] / "examples" / "c_api"
QUIET_S = 0.25


class Program:
    """A running `samples` that answers."""

    def __init__(self, path: Path) -> None:
        self._running = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ask(1)

    @property
    def pid(self) -> int:
        return self._running.pid

    def ask(self, what: object) -> str:
        """Return the answer to one line."""
        assert self._running.stdin
        assert self._running.stdout
        self._running.stdin.write(f"{what}\n")
        self._running.stdin.flush()
        return self._running.stdout.readline().strip()

    def close(self) -> None:
        assert self._running.stdin
        assert self._running.stdout
        self._running.stdin.close()
        assert self._running.wait(60) == 0
        self._running.stdout.close()


@pytest.fixture
def program(build: Callable[..., Path]) -> Iterator[Program]:
    found = Program(build("samples.c"))
    yield found
    found.close()


@pytest.fixture
def module(program: Program) -> Iterator[Module]:
    with Module(Process(program.pid)) as found:
        yield found


def lines() -> list[str]:
    return list(kmsg(QUIET_S))


def first(p, regs):
    printk(f"first {regs_get_kernel_argument(regs, 0)}")
    return 0


def second(p, regs):
    printk(f"second {p.symbol_name}")
    return 0


def after(p, regs, flags):
    printk(f"after {flags} {regs.ip - p.addr}")


def whereabouts(p, regs):
    pr_info(f"{p.addr:#x} {instruction_pointer(regs):#x} {kernel_stack_pointer(regs):#x} {regs.rsp - regs.sp} {comm()}")
    dump_stack()


def leaves_out(p, regs):
    if regs.di == 100:
        regs.ax = 77
        return 1
    return 0


def faulted(p, regs, trapnr):
    printk(f"trap {trapnr} reading {regs.di}")


def repairs(p, regs, trapnr):
    regs.di = regs.sp
    return 1


@struct
class Kept:
    argument: u64


def entry_handler(ri, regs):
    if regs.di == 100:
        return 1
    ri.data.argument = regs.di
    return 0


def ret_handler(ri, regs):
    printk(f"{ri.rp.kp.symbol_name}({ri.data.argument}) = {regs_return_value(regs)}")


def tells_return(ri, regs):
    printk(f"{ri.ret_addr:#x} {ri.task} {get_kretprobe(ri).kp.symbol_name}")


def entry_of_work(b, a):
    printk(f"work({a}, {b})")
    return 0


def refused(name: str, *things, to=None) -> RegistrationError:
    """Return the error that registering *things* by the one call ends with."""
    module = to
    with pytest.raises(RegistrationError) as caught:
        register_kprobes(things, to=module)
    assert (caught.value.name, caught.value.errno) == (name, getattr(errno, name))
    assert caught.value.hint
    return caught.value


# Registering.


def test_a_place_is_a_symbol_or_an_address(program, module):
    refused("EINVAL", Kprobe())
    refused("EINVAL", Kprobe(symbol_name="work", addr=0x1000))
    refused("EINVAL", Kprobe(symbol_name="wor*"))
    refused("EINVAL", Kprobe(addr=0x1000))
    refused("EINVAL", Kprobe(symbol_name="work", offset=-1))


def test_an_address_that_is_given_is_one_of_the_process(program, module):
    by_name = Kprobe(symbol_name="work", pre_handler=first)
    register_kprobe(by_name)
    address = by_name.addr
    unregister_kprobe(by_name)
    by_address = Kprobe(addr=address, pre_handler=first)
    register_kprobe(by_address)
    program.ask(7)
    assert by_address.addr == address
    assert lines() == ["first 7"]


def test_errors_have_the_numbers_of_the_kernel(program, module):
    assert "did you mean" in refused("ENOENT", Kprobe(symbol_name="worg")).hint
    refused("EILSEQ", Kprobe(symbol_name="work", offset=1))
    refused("EINVAL", Kprobe(symbol_name="work", offset=0x1000))
    refused("EOPNOTSUPP", Kprobe(symbol_name="work", offset=work_return(program), post_handler=after))
    refused("EINVAL")
    with pytest.raises(RegistrationError, match="EINVAL"):
        register_kretprobe(Kretprobe(symbol_name="factorial", offset=4, handler=ret_handler))
    with pytest.raises(RegistrationError, match="a Kretprobe is wanted here"):
        register_kretprobe(Kprobe(symbol_name="work"))


def work_return(program: Program) -> int:
    """Return the offset of the `ret` of `work`."""
    listed = subprocess.run(["objdump", "-d", f"/proc/{program.pid}/exe"], capture_output=True, text=True, check=True)
    body = listed.stdout.partition("<work>:\n")[2].partition("\n\n")[0].splitlines()
    addresses = [int(line.partition(":")[0], 16) for line in body]
    return next(at for at, line in zip(addresses, body, strict=True) if line.rstrip().endswith("ret")) - addresses[0]


def test_a_process_that_is_gone():
    done = subprocess.Popen(["true"])
    done.wait()
    refused("ESRCH", Kprobe(symbol_name="main"), to=Process(done.pid))


def test_a_process_that_another_module_probes(program, module):
    register_kprobe(Kprobe(symbol_name="work"))
    assert "end that session first" in refused("EBUSY", Kprobe(symbol_name="work"), to=Process(program.pid)).hint


def test_the_same_object_once_more(program, module):
    kp = Kprobe(symbol_name="work", pre_handler=first)
    register_kprobe(kp)
    refused("EINVAL", kp)
    unregister_kprobe(kp)
    unregister_kprobe(kp)
    register_kprobe(kp)
    assert (kp.hits, kp.nmissed) == (0, 0)
    program.ask(7)
    assert lines() == ["first 7"]


def test_one_of_a_batch_is_refused_and_none_is_left(program, module):
    good = Kprobe(symbol_name="work", pre_handler=first)
    refused("ENOENT", good, Kprobe(symbol_name="nothing_is_called_so"))
    assert good.flags == 0
    program.ask(7)
    assert lines() == []
    register_kprobe(good)


def test_no_handler_runs_once_unregister_has_returned(program, module):
    probes = [Kprobe(symbol_name="work", pre_handler=first), Kprobe(symbol_name="load", pre_handler=first)]
    register_kprobes(probes)
    program.ask(7)
    unregister_kprobes(probes)
    program.ask(8)
    assert lines() == ["first 7"]


def test_a_probe_with_a_target_of_its_own(program):
    kp = Kprobe(symbol_name="work", pre_handler=first)
    register_kprobe(kp, to=Process(program.pid))
    program.ask(7)
    assert kp.hits == 1
    assert list(kp.registration.module.kmsg(QUIET_S)) == ["first 7"]
    unregister_kprobe(kp)
    register_kprobe(kp, to=Process(program.pid))
    unregister_kprobe(kp)


def test_what_is_meant_without_a_target_is_the_module_around(program, module):
    kp = Kprobe(symbol_name="work")
    register_kprobe(kp)
    program.ask(7)
    assert kp.registration.module is module
    assert kp.hits == 1


# State.


def test_flags_tell_the_state(program, module):
    kp = Kprobe(symbol_name="work", pre_handler=first)
    register_kprobe(kp)
    assert kp.flags == KPROBE_FLAG_OPTIMIZED | KPROBE_FLAG_ON_FUNC_ENTRY
    disable_kprobe(kp)
    assert kp.flags & KPROBE_FLAG_DISABLED


def test_disabled_and_enabled(program, module):
    kp = Kprobe(symbol_name="work", pre_handler=first)
    for change in (enable_kprobe, disable_kprobe):
        with pytest.raises(RegistrationError, match="is not registered"):
            change(kp)
    register_kprobe(kp)
    program.ask(1)
    disable_kprobe(kp)
    disable_kprobe(kp)
    program.ask(2)
    enable_kprobe(kp)
    program.ask(3)
    assert lines() == ["first 1", "first 3"]
    assert kp.hits == 2


def test_what_could_not_be_enabled_can_be_once_nothing_is_in_the_way(program):
    with attach(Probe("uprobe", ("work",)), to=Process(program.pid)) as session:
        (row,) = session.listing
        session.disable()
        with Path(f"/proc/{program.pid}/mem").open("r+b", buffering=0) as memory:
            memory.seek(row.address)
            code = memory.read(1)
            for content, fits in ((b"\xcc", False), (code, True)):
                memory.seek(row.address)
                memory.write(content)
                with nullcontext() if fits else pytest.raises(TargetError):
                    session.enable()
                (row,) = session.listing
                assert (State.DISABLED in row.flags) is not fits
        program.ask(7)
        assert [one.hits for one in session.stats] == [1]


def test_registered_as_disabled(program, module):
    kp = Kprobe(symbol_name="work", pre_handler=first, flags=KPROBE_FLAG_DISABLED)
    register_kprobe(kp)
    program.ask(1)
    assert kp.hits == 0
    enable_kprobe(kp)
    program.ask(2)
    assert lines() == ["first 2"]
    refused("EILSEQ", Kprobe(symbol_name="work", offset=1, flags=KPROBE_FLAG_DISABLED))


def test_all_disarmed_and_armed_leaves_each_one_its_own_state(program, module):
    on = Kprobe(symbol_name="work", pre_handler=first)
    off = Kprobe(symbol_name="work", pre_handler=second, flags=KPROBE_FLAG_DISABLED)
    register_kprobes([on, off])
    disarm_all_kprobes()
    late = Kretprobe(symbol_name="work", handler=ret_handler, data_size=8, entry_handler=entry_handler)
    register_kretprobe(late)
    program.ask(1)
    assert not on.flags & KPROBE_FLAG_DISABLED
    assert off.flags & KPROBE_FLAG_DISABLED
    arm_all_kprobes()
    program.ask(2)
    assert lines() == ["first 2", "work(0x2) = 11"]


def test_symbols_are_looked_up_in_the_target(program, module):
    kp = Kprobe(symbol_name="work")
    register_kprobe(kp)
    assert module.kallsyms_lookup_name("work") == kallsyms_lookup_name("work") == kp.addr
    with pytest.raises(LookupError):
        module.kallsyms_lookup_name("worg")


def test_another_thread_reads_to_the_end_while_the_module_is_closed(program):
    for _ in range(4):
        found: list[str] = []
        with Module(Process(program.pid)) as module:
            reader = Thread(target=lambda found=found, module=module: found.extend(module.kmsg(60)))
            reader.start()
            register_kprobe(Kprobe(symbol_name="work", pre_handler=first))
            program.ask(7)
        reader.join()
        assert found == ["first 7"]


def test_another_thread_reads_while_probes_come_and_go(program, module):
    found: list[str] = []
    reader = Thread(target=lambda: found.extend(islice(module.kmsg(60), 8)))
    reader.start()
    for turn in range(8):
        kp = Kprobe(symbol_name="work", pre_handler=first)
        register_kprobe(kp)
        program.ask(turn)
        unregister_kprobe(kp)
    reader.join()
    assert found == [f"first {turn}" for turn in range(8)]


def test_a_handler_that_says_where_to_go_on(program, module):
    offset = work_return(program) - 3
    register_kprobe(Kprobe(symbol_name="work", offset=offset, pre_handler=goes_on_behind, unsafe=True))
    assert [program.ask(number).split()[0] for number in (7, 100)] == ["26", "300"]


def goes_on_behind(p, regs):
    if regs.di == 100:
        regs.ip = p.addr + 3
        return 1
    return 0


def has_a_mistake(p, regs):
    forgotten = regs.di  # noqa: F841 - the mistake
    return 0


def test_what_is_probably_not_meant_is_told_once(program, module):
    kp = Kprobe(symbol_name="work", pre_handler=has_a_mistake)
    with pytest.warns(HandlerWarning, match="forgotten is assigned and never used") as told:
        register_kprobe(kp)
    module.register(Kprobe(symbol_name="load"))
    ours = [one for one in told if one.category is HandlerWarning]  # Python's own come whenever memory is cleaned up
    assert [Path(one.filename).name for one in ours] == ["test_registered.py"]
    with warnings.catch_warnings(), Module(Process(program.pid)) as strict:
        warnings.simplefilter("error")
        module.close()
        with pytest.raises(HandlerWarning):
            strict.register(Kprobe(symbol_name="work", pre_handler=has_a_mistake))
        assert strict.sessions == []


def test_a_process_that_ends_meanwhile(build):
    program = Program(build("samples.c"))
    with Module(Process(program.pid)) as module:
        probes = [Kprobe(symbol_name="work", pre_handler=first), Kretprobe(symbol_name="work")]
        module.register(*probes)
        program.ask(7)
        program.close()
        assert list(module.kmsg(10)) == ["first 7"]
        assert (probes[0].hits, probes[0].flags & KPROBE_FLAG_GONE) == (1, KPROBE_FLAG_GONE)
        for change in (disable_kprobe, enable_kprobe):
            with pytest.raises(RegistrationError, match="EINVAL"):
                change(probes[0])
        refused("ESRCH", Kprobe(symbol_name="load"))
        unregister_kprobe(probes[0])
    assert probes[1].kp.registration is None


class Interrupting:
    """An engine during whose attach Ctrl-C is pressed."""

    def __init__(self, engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def attach(self, plan):
        signal.raise_signal(signal.SIGINT)
        return self._engine.attach(plan)


def test_a_ctrl_c_while_probes_are_registered_comes_when_they_are(program):
    kp = Kprobe(symbol_name="work", pre_handler=first)
    with Process(program.pid).open() as engine, Module(Interrupting(engine)) as module:
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with pytest.raises(KeyboardInterrupt):
                register_kprobe(kp)
        finally:
            signal.signal(signal.SIGINT, before)
        program.ask(7)
        assert (kp.hits, list(module.kmsg(QUIET_S))) == (1, ["first 7"])
        unregister_kprobe(kp)
        program.ask(8)
    assert kp.hits == 0


def test_threads_that_register_at_once_each_get_theirs_and_one_object_only_once(program, module):
    own = [Kprobe(symbol_name="work") for _ in range(3)]
    shared, errors, start = Kprobe(symbol_name="work"), [], Barrier(len(own))

    def register(kp: Kprobe) -> None:
        start.wait()
        for one in (shared, kp):
            try:
                module.register(one)
            except RegistrationError as error:
                errors.append((one, error.name))

    threads = [Thread(target=register, args=(kp,)) for kp in own]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    program.ask(7)
    assert errors == [(shared, "EINVAL")] * 2
    assert [one.hits for one in (shared, *own)] == [1] * 4


def test_members_of_other_types_are_refused(program, module):
    refused("EINVAL", Kprobe(symbol_name="work", offset="4"))
    refused("EINVAL", Kprobe(symbol_name=4))
    refused("EINVAL", Kprobe(symbol_name="work", flags="2"))
    refused("EINVAL", Kretprobe(kp="work", handler=ret_handler))
    refused("EINVAL", "work")
    with pytest.raises(RegistrationError, match="maxactive is no number"):
        register_kretprobe(Kretprobe(symbol_name="factorial", handler=ret_handler, maxactive="4"))
    unregister_kprobe(Kprobe(symbol_name="work"))
    unregister_kprobes([])


# Several at one place.


def test_several_run_in_the_order_of_their_registration(program, module):
    register_kprobe(Kprobe(symbol_name="work", pre_handler=second))
    register_kprobe(Kprobe(symbol_name="work", pre_handler=first))
    program.ask(7)
    assert lines() == ["second work", "first 7"]


def test_one_of_several_rests_and_the_others_go_on(program, module):
    probes = [Kprobe(symbol_name="work", pre_handler=handler) for handler in (first, second)]
    register_kprobes(probes)
    disable_kprobe(probes[0])
    program.ask(7)
    enable_kprobe(probes[0])
    program.ask(8)
    unregister_kprobe(probes[0])
    program.ask(9)
    assert lines() == ["second work", "first 8", "second work", "second work"]
    assert [one.hits for one in probes] == [0, 3]


def test_the_first_that_leaves_the_instruction_out_stops_the_rest(program, module):
    stops = Kprobe(symbol_name="work", offset=work_return(program) - 3, pre_handler=leaves_out, unsafe=True)
    behind = Kprobe(symbol_name="work", offset=work_return(program) - 3, pre_handler=second)
    register_kprobes([stops, behind])
    assert program.ask(7).split()[0] == "26"
    assert program.ask(100).split()[0] == "77"
    assert lines() == ["second work"]


def test_what_handlers_have_gathered_goes_on_while_others_come(program, module):
    counting = Kprobe(symbol_name="work", pre_handler=counts_work)
    register_kprobe(counting)
    program.ask(7)
    late = Kprobe(symbol_name="work", pre_handler=counts_work)
    register_kprobes([Kprobe(symbol_name="load", pre_handler=second), late])
    program.ask(8)
    session = module.session_of(counting)
    assert session[gathered] == 3
    kp = Kprobe(symbol_name="work", flags=KPROBE_FLAG_DISABLED)
    register_kprobe(kp)
    program.ask(9)
    enable_kprobe(kp)
    program.ask("f")
    module.unregister(counting)
    program.ask(10)
    assert (session[gathered], late.hits, kp.hits) == (6, 3, 1)
    assert lines() == ["second load"]


def test_a_map_of_another_shape_is_another_map(program, module):
    counting, late = (Kprobe(symbol_name="work", pre_handler=one) for one in (counts_work, counts_otherwise))
    register_kprobes([counting, Kprobe(symbol_name="load")])
    program.ask(7)
    with pytest.raises(CompileError, match="two maps are called 'gathered'"):
        register_kprobe(late)
    session = module.session_of(counting)
    assert session[gathered] == 1
    unregister_kprobe(counting)
    register_kprobe(late)
    program.ask(8)
    assert session[otherwise] == {8: 1}


gathered = Count("gathered")


otherwise = Count("gathered", by=int)


def counts_work(p, regs):
    gathered.add()


def counts_otherwise(p, regs):
    otherwise.add(by=regs.di)


# Handlers.


def test_each_handler_may_be_absent(program, module):
    nothing, behind = Kprobe(symbol_name="work"), Kprobe(symbol_name="work", post_handler=after)
    register_kprobes([nothing, behind])
    program.ask(7)
    assert (nothing.hits, behind.hits) == (1, 1)
    assert lines() == ["after 0 7"]


def test_a_post_handler_does_not_run_where_the_instruction_is_left_out(program, module):
    offset = work_return(program) - 3
    register_kprobe(Kprobe(symbol_name="work", offset=offset, pre_handler=leaves_out, post_handler=after, unsafe=True))
    assert [program.ask(number).split()[0] for number in (7, 100)] == ["26", "77"]
    assert lines() == ["after 0 3"]


def test_registers_by_both_spellings_and_the_stack(program, module):
    kp = Kprobe(symbol_name="work", pre_handler=whereabouts)
    register_kprobe(kp)
    program.ask(7)
    told, head, title, *frames = lines()
    address, here, stack, none, name = told.split()
    assert (int(address, 16), int(here, 16), none) == (kp.addr, kp.addr, "0")
    assert name.startswith("samples")
    assert int(stack, 16) % 16 == 8
    assert head.startswith("CPU: ")
    assert f"PID: {program.pid} Comm: samples" in head
    assert title == "Call Trace:"
    assert [frame.strip().partition("+")[0] for frame in frames[:2]] == ["work", "main"]


def test_a_fault_of_the_instruction(program, module):
    kp = Kprobe(symbol_name="load", pre_handler=second, fault_handler=faulted)
    register_kprobe(kp)
    assert program.ask("f") == "fault"
    assert sorted(lines()) == ["second load", "trap 14 reading 0x8"]


def test_a_fault_handler_that_has_dealt_with_it(program, module):
    register_kprobe(Kprobe(symbol_name="load", fault_handler=repairs, unsafe=True))
    assert int(program.ask("f")) > 0x1000


def talks(p, regs):
    printk(f"{string(regs.sp, 400)} {string(regs.sp, 400)}")


def test_messages_that_find_no_room_are_told(program, module):
    kp = Kprobe(symbol_name="work", pre_handler=talks)
    register_kprobe(kp)
    program.ask("n")
    told = lines()
    lost = module.lost
    assert lost > 0
    assert len(told) - 1 + lost == kp.hits == 100_000
    assert told[-1] == f"** {lost} printk messages dropped **"
    assert lines() == []


def test_what_was_printed_can_be_read_when_the_module_is_closed(program):
    with Module(Process(program.pid)) as module:
        register_kprobe(Kprobe(symbol_name="work", pre_handler=first))
        program.ask(7)
    assert list(module.kmsg()) == ["first 7"]
    with pytest.raises(RegistrationError, match="the module is closed"):
        module.register(Kprobe(symbol_name="work"))


# Return probes.


def test_a_return_probe_keeps_what_it_is_given_for_each_call(program, module):
    rp = Kretprobe(symbol_name="factorial", entry_handler=entry_handler, handler=ret_handler, data_size=Kept)
    register_kretprobe(rp)
    program.ask(7)
    assert lines() == ["factorial(1) = 1", "factorial(2) = 2", "factorial(3) = 6", "factorial(4) = 24"]
    assert (rp.nmissed, rp.kp.hits) == (0, 4)


def test_an_entry_handler_that_returns_something_has_the_return_not_looked_at(program, module):
    register_kretprobe(Kretprobe(symbol_name="work", entry_handler=entry_handler, handler=ret_handler, data_size=8))
    program.ask(100)
    program.ask(7)
    assert lines() == ["work(0x7) = 26"]


def test_the_return_address_at_entry_and_return(program, module):
    rp = Kretprobe(symbol_name="work", entry_handler=tells_return, handler=tells_return)
    register_kretprobe(rp)
    program.ask(7)
    entered, left = lines()
    assert entered == left
    address, thread, name = left.split()
    assert (int(thread), name) == (program.pid, "work")
    with Path(f"/proc/{program.pid}/mem").open("rb", 0) as memory:
        memory.seek(int(address, 16) - 5)
        assert memory.read(1) == b"\xe8"


def test_a_return_probe_rests_and_goes_on(program, module):
    rp = Kretprobe(symbol_name="work", entry_handler=entry_handler, handler=ret_handler, data_size=Kept)
    register_kretprobe(rp)
    disable_kretprobe(rp)
    program.ask(7)
    enable_kretprobe(rp)
    program.ask(8)
    unregister_kretprobe(rp)
    program.ask(9)
    assert lines() == ["work(8) = 29"]


def test_a_jprobe_has_the_parameters_of_the_function(program, module):
    jp = Jprobe(symbol_name="work", entry=entry_of_work)
    register_jprobe(jp)
    program.ask(7)
    unregister_jprobe(jp)
    program.ask(8)
    assert lines() == ["work(7, 5)"]


# Entries behind an ENDBR64, and libraries that come and go.


@pytest.fixture
def marked(build: Callable[..., Path]) -> Iterator[Program]:
    found = Program(build("samples.c", "-fcf-protection=branch"))
    yield found
    found.close()


def test_the_first_instruction_behind_an_endbr_is_the_entry(marked):
    with Module(Process(marked.pid)):
        entry, behind = (Kprobe(symbol_name="work", offset=offset, pre_handler=first) for offset in (0, 4))
        returning = Kretprobe(
            symbol_name="work", offset=4, handler=ret_handler, entry_handler=entry_handler, data_size=8
        )
        register_kprobes([entry, behind])
        assert entry.flags & behind.flags & KPROBE_FLAG_ON_FUNC_ENTRY
        register_kretprobe(returning)
        marked.ask(7)
        assert lines() == ["first 7", "first 7", "work(0x7) = 26"]
        unregister_kretprobe(returning)
        start = kallsyms_lookup_name("work")
        for addr, offset in ((start, 0), (start, 4), (start + 4, 0)):
            other = Kretprobe(addr=addr, offset=offset, handler=ret_handler, entry_handler=entry_handler, data_size=8)
            register_kretprobe(other)
            marked.ask(8)
            assert lines() == ["first 8", "first 8", "(0x8) = 29"], (addr - start, offset)
            unregister_kretprobe(other)


def test_a_probe_in_a_library_that_comes_and_goes(program, module, build):
    library = build("inside.c", "-shared", "-fPIC")
    kp = Kprobe(symbol_name=f"{library}:inside", pre_handler=first)
    register_kprobe(kp)
    assert (kp.addr, kp.flags & KPROBE_FLAG_GONE) == (0, 0)
    for turn in (1, 2):
        assert program.ask(f"l {library}") == "42"
        assert (kp.hits, kp.flags & KPROBE_FLAG_GONE) == (turn, 0)
        assert program.ask("u") == "0"
        assert kp.flags & KPROBE_FLAG_GONE
        with pytest.raises(RegistrationError, match="has gone"):
            disable_kprobe(kp)
    assert lines() == ["first 21", "first 21"]


# The samples of the kernel.


@pytest.mark.parametrize("name", ["kprobe", "kretprobe", "jprobe"])
def test_the_samples_of_the_kernel_run_on_a_process(program, name):
    words = ["1"] if name == "jprobe" else ["kernel_clone", "1"]
    command = [sys.executable, str(EXAMPLES / f"{name}_example.py"), str(program.pid), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as running:
        assert running.stdout
        planted = running.stdout.readline()
        assert "Planted" in planted
        assert program.ask("c") == "4321"
        told = running.stdout.read()
    assert running.returncode == 0
    address = planted.split()[-1]
    wanted = {
        "kprobe": f"<kernel_clone> p->addr = {address}, ip = {address}, flags = 0x",
        "kretprobe": "kernel_clone returned 4321 and took ",
        "jprobe": "jprobe: clone_flags = 0x1200000, stack_start = 0xabc000 stack_size = 0x8000",
    }
    assert told.startswith(wanted[name])
