"""The kernel's own calls on kernels: handlers, counts, state, and the errors that the kernel itself gives."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest
from guest_harness import ROOT, Guest, left_in, lossless

from kprobes import (
    KPROBE_FLAG_DISABLED,
    KPROBE_FLAG_ON_FUNC_ENTRY,
    Count,
    Jprobe,
    Kprobe,
    Kretprobe,
    Module,
    RegistrationError,
    arm_all_kprobes,
    comm,
    disable_kprobe,
    disable_kretprobe,
    disarm_all_kprobes,
    dump_stack,
    enable_kprobe,
    enable_kretprobe,
    instruction_pointer,
    jprobe_return,
    kprobe,
    kretprobe,
    now,
    printk,
    register_jprobe,
    register_kprobe,
    register_kprobes,
    register_kretprobe,
    regs_get_kernel_argument,
    regs_return_value,
    struct,
    tracepoint,
    u64,
    unregister_kprobe,
    unregister_kprobes,
    unregister_kretprobe,
)
from kprobes.arch.x86_64.behind import stack_change
from kprobes.arch.x86_64.decode import Flow, decode
from kprobes.engines.vm.kernels import FOREIGN_NAMES
from kprobes.errors import CompileError, UnsupportedError
from kprobes.symbols.kallsyms import Kallsyms

SIZE = 1234
HITS = 20
MANY = 6


@struct
class Kept:
    stamp: u64
    size: u64


def first(p, regs):
    if comm() == "calls":
        printk(f"first {regs_get_kernel_argument(regs, 2)} {p.addr:#x} {regs.ip - p.addr}")
    return 0


def second(p, regs):
    if comm() == "calls":
        printk(f"second {p.symbol_name}")
    return 0


def after(p, regs, flags):
    if comm() == "calls":
        printk(f"after {flags} {p.addr:#x} {regs.ip - p.addr - 1}")


def entry_handler(ri, regs):
    if comm() != "calls" or regs.dx != SIZE:
        return 1
    ri.data.stamp = now()
    ri.data.size = regs.dx
    return 0


def ret_handler(ri, regs):
    printk(f"{ri.rp.kp.symbol_name}({ri.data.size:d}) = {regs_return_value(regs)} {now() - ri.data.stamp > 0}")


def tells_return(ri, regs):
    if comm() == "calls":
        printk(f"{ri.ret_addr:#x} {ri.task.comm}")


def entry_of_write(file, count):
    if comm() == "calls" and count == SIZE:
        printk(f"{file.f_path.dentry.d_name.name.string()} {count}")
        dump_stack()
    jprobe_return()
    return 0


def returns_1(p, regs):
    return 1


def writes_a_register(p, regs):
    regs.ax = 1
    return 0


@pytest.fixture
def module(guest):
    """Return a module in the guest of each kernel."""
    with Module(guest.target) as found:
        yield found


def printed(module: Module, guest: Guest) -> list[str]:
    """Write to /dev/null some times, and return the lines that came of it."""
    guest.call("write", SIZE, HITS)
    return list(module.kmsg(0))


def refused(name: str, thing: Kprobe) -> RegistrationError:
    with pytest.raises(RegistrationError) as caught:
        register_kprobe(thing)
    assert (caught.value.name, caught.value.errno) == (name, getattr(errno, name))
    assert caught.value.hint
    return caught.value


def test_before_and_behind_the_entry_and_other_instructions(guest, module):
    offsets = {"entry": 0, **inner_offsets(guest)}
    for offset in offsets.values():
        kp = Kprobe(symbol_name="vfs_write", offset=offset, pre_handler=first, post_handler=after)
        register_kprobe(kp)
        lines = printed(module, guest)
        assert len(lines) == 2 * HITS
        assert lines[0].endswith(f"{kp.addr:#x} 1")
        if not offset:
            assert lines[0].startswith(f"first {SIZE} ")
            assert kp.flags & KPROBE_FLAG_ON_FUNC_ENTRY
        assert lines[1].startswith(f"after 0 {kp.addr:#x} ")
        assert lines[::2] == [lines[0]] * HITS
        assert 0 < int(lines[1].split()[-1]) <= 15
        assert kp.hits >= HITS
        unregister_kprobe(kp)


def inner_offsets(guest: Guest) -> dict[str, int]:
    """Return where in vfs_write, early, stands an instruction that moves the stack pointer, and one that doesn't."""
    found: dict[str, int] = {}
    facts = guest.machine.facts()
    start = Kallsyms.load(facts.kallsyms()).kallsyms_lookup_name("vfs_write")
    for item in decode(facts.memory(start, 96), start)[3:]:
        moved = stack_change(item) if item.flow == Flow.NEXT else None
        if moved is not None and len(item.code) > 1:
            found.setdefault("plain" if moved == 0 else "stack", item.address - start)
        if item.flow not in (Flow.NEXT, Flow.BRANCH):
            break
    assert "plain" in found
    return found


def test_of_many_threads_each_hit_has_its_post_handler(newest):
    kp = Kprobe(symbol_name="vfs_read", offset=0, pre_handler=counts_before, post_handler=counts_behind)
    with Module(newest.target) as module:
        register_kprobe(kp)
        newest.call("pipes", 4, 200)
        disable_kprobe(kp)
        session = module.session_of(kp)
        assert session[before] == session[behind] >= 800


before, behind = Count("before"), Count("behind")


def counts_before(p, regs):
    if comm() == "calls":
        before.add()


def counts_behind(p, regs, flags):
    if comm() == "calls":
        behind.add()


def test_a_return_probe_keeps_what_it_is_given_for_each_call(guest, module):
    rp = Kretprobe(
        symbol_name="vfs_write", entry_handler=entry_handler, handler=ret_handler, data_size=Kept, maxactive=20
    )
    register_kretprobe(rp)
    assert printed(module, guest) == [f"vfs_write({SIZE}) = {SIZE} True"] * HITS
    assert rp.nmissed == 0
    disable_kretprobe(rp)
    assert rp.kp.flags & KPROBE_FLAG_DISABLED
    assert printed(module, guest) == []
    enable_kretprobe(rp)
    assert len(printed(module, guest)) == HITS
    unregister_kretprobe(rp)
    assert printed(module, guest) == []


def test_the_return_address_where_the_kernel_tells_it(guest, module):
    rp = Kretprobe(symbol_name="vfs_write", handler=tells_return)
    if guest.kernel == "5.10":
        with pytest.raises(CompileError, match="doesn't tell the return address"):
            register_kretprobe(rp)
        return
    register_kretprobe(rp)
    (told,) = {*printed(module, guest)}
    address, name = told.split()
    assert name == "calls"
    symbol, offset = Kallsyms.load(guest.machine.facts().kallsyms()).symbol_at(int(address, 16))
    assert (symbol.name, offset > 0) == ("ksys_write", True)


def test_a_jprobe_has_the_parameters_of_the_function_and_a_stack(guest, module):
    register_jprobe(Jprobe(symbol_name="vfs_write", entry=entry_of_write))
    lines = printed(module, guest)
    assert lines.count(f"null {SIZE}") == HITS
    head = lines.index(f"null {SIZE}")
    assert lines[head + 1].startswith("CPU: ")
    assert lines[head + 1].endswith("Comm: calls")
    assert lines[head + 2] == "Call Trace:"
    assert [line.strip().partition("+")[0] for line in lines[head + 3 : head + 5]] == ["vfs_write", "ksys_write"]


def test_several_at_one_place_each_with_a_state_of_its_own(guest, module):
    probes = [Kprobe(symbol_name="vfs_write", pre_handler=handler) for handler in (first, second)]
    late = Kprobe(symbol_name="vfs_write", pre_handler=second, flags=KPROBE_FLAG_DISABLED)
    register_kprobes([*probes, late])
    assert kinds(printed(module, guest)) == {"first": HITS, "second": HITS}
    disable_kprobe(probes[0])
    before = probes[0].hits
    assert kinds(printed(module, guest)) == {"second": HITS}
    assert probes[0].hits == before
    disarm_all_kprobes()
    assert printed(module, guest) == []
    assert (probes[0].flags & KPROBE_FLAG_DISABLED, probes[1].flags & KPROBE_FLAG_DISABLED) == (2, 0)
    arm_all_kprobes()
    assert kinds(printed(module, guest)) == {"second": HITS}
    enable_kprobe(probes[0])
    enable_kprobe(late)
    assert kinds(printed(module, guest)) == {"first": HITS, "second": 2 * HITS}
    module.unregister(*probes, late)
    assert printed(module, guest) == []


def kinds(lines: list[str]) -> dict[str, int]:
    names = [line.split()[0] for line in lines]
    return {name: names.count(name) for name in sorted(set(names))}


def test_errors_have_the_numbers_of_the_kernel(guest, module):
    refused("EINVAL", Kprobe())
    assert "did you mean" in refused("ENOENT", Kprobe(symbol_name="vfs_wrote")).hint
    inside = inner_offsets(guest)["plain"]
    refused("EILSEQ", Kprobe(symbol_name="vfs_write", offset=inside + 1))
    refused("EILSEQ", Kprobe(symbol_name="vfs_write", offset=inside + 1, post_handler=after))
    refused("EINVAL", Kprobe(symbol_name=blacklisted(guest), pre_handler=first))
    refused("EINVAL", Kprobe(addr=0x1000))
    refused("EOPNOTSUPP", Kprobe(symbol_name="vfs_write", fault_handler=after))
    refused("EILSEQ", Kprobe(symbol_name="vfs_write", offset=1, flags=KPROBE_FLAG_DISABLED))
    twice = ambiguous(guest)
    assert "name one of" in refused("EADDRNOTAVAIL", Kprobe(symbol_name=twice)).hint
    with pytest.raises(RegistrationError, match="E2BIG"):
        register_kretprobe(Kretprobe(symbol_name="vfs_write", handler=ret_handler, data_size=4097))
    with pytest.raises(RegistrationError, match="EINVAL"):
        register_kretprobe(Kretprobe(symbol_name="vfs_write", offset=inside, handler=ret_handler))


def blacklisted(guest: Guest) -> str:
    text = guest.machine.facts().text("blacklist") or ""
    names = [line.split()[1] for line in text.splitlines()]
    return next(name for name in names if name.isidentifier() and names.count(name) == 1 and "asm" not in name)


def ambiguous(guest: Guest) -> str:
    table = Kallsyms.load(guest.machine.facts().kallsyms())
    for name in ("state_show", "type_show", "name_show", "size_show"):
        if len({symbol.address for symbol in table.lookup(name)}) > 1:
            return name
    raise AssertionError("no name is there twice")


def test_a_batch_of_which_one_is_refused_leaves_none(newest):
    with Module(newest.target) as module:
        good = Kprobe(symbol_name="vfs_write", pre_handler=first)
        with pytest.raises(RegistrationError, match="ENOENT"):
            register_kprobes([good, Kprobe(symbol_name="vfs_wrote")])
        assert good.registration is None
        assert printed(module, newest) == []
        assert left_in(newest) == ""
        register_kprobe(good)
        with pytest.raises(RegistrationError, match="is registered already"):
            register_kprobe(good)


def test_many_are_unregistered_at_once_and_none_is_left(newest):
    with Module(newest.target) as module:
        probes = [Kprobe(symbol_name="vfs_write", pre_handler=first) for _ in range(MANY)]
        register_kprobes(probes)
        assert kinds(printed(module, newest)) == {"first": HITS * MANY}
        assert [one.hits >= HITS for one in probes] == [True] * MANY
        unregister_kprobes(probes)
        assert module.sessions == []
        assert printed(module, newest) == []
        assert left_in(newest) == ""


@pytest.mark.parametrize("handler", [returns_1, writes_a_register])
def test_what_a_kernel_can_not_do_is_told_at_its_line(newest, handler):
    with Module(newest.target), pytest.raises(CompileError) as caught:
        register_kprobe(Kprobe(symbol_name="vfs_write", pre_handler=handler, unsafe=True))
    assert caught.value.hint
    assert caught.value.source.strip() in ("return 1", "regs.ax = 1")


def test_no_post_handler_behind_a_branch(newest):
    facts = newest.machine.facts()
    start = Kallsyms.load(facts.kallsyms()).kallsyms_lookup_name("vfs_write")
    branch = next(one for one in decode(facts.memory(start, 256), start) if one.flow == Flow.BRANCH)
    with Module(newest.target):
        kp = Kprobe(symbol_name="vfs_write", offset=branch.address - start, post_handler=after)
        assert "may lead elsewhere" in refused("EOPNOTSUPP", kp).what


def test_calls_that_find_no_room_are_missed(newest):
    with Module(newest.target):
        rp = Kretprobe(symbol_name="do_epoll_wait", handler=slept, maxactive=1)
        register_kretprobe(rp)
        newest.call("sleep", 4, 1000, 1)
        assert rp.nmissed >= 3


def slept(ri, regs):
    if comm() == "calls":
        printk("slept")


@pytest.mark.parametrize("name", ["kprobe", "kretprobe", "jprobe"])
def test_the_samples_of_the_kernel_run_in_a_guest(newest, name):
    words = ["2"] if name == "jprobe" else ["kernel_clone", "2"]
    command = [sys.executable, str(ROOT / "examples" / "c_api" / f"{name}_example.py"), newest.kernel, *words]
    forks = newest.machine.run(["sh", "-c", "while :; do /bin/true; usleep 10000; done"])
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
            assert "Planted" in running.stdout.readline()
            told = running.stdout.read()
    finally:
        forks.kill()
    assert running.returncode == 0
    wanted = {
        "kprobe": "<kernel_clone> p->addr = 0x",
        "kretprobe": "kernel_clone returned ",
        "jprobe": "jprobe: clone_flags = 0x",
    }
    assert told.startswith(wanted[name])


def test_on_another_architecture(guest_of):
    guest = guest_of(FOREIGN_NAMES[-1])
    with Module(guest.target) as module:
        kp = Kprobe(symbol_name="vfs_write", pre_handler=of_dd)
        rp = Kretprobe(symbol_name="vfs_write", entry_handler=entry_of_dd, handler=ret_handler, data_size=Kept)
        module.register(kp, rp, Jprobe(symbol_name="vfs_write", entry=jprobe_of_dd))
        assert guest.shell(f"dd if=/dev/zero of=/dev/null bs={SIZE} count=1").status == 0
        lines = list(module.kmsg(0))
        assert sorted(lines) == [f"jprobe {SIZE}", f"pre {SIZE} 0", f"vfs_write({SIZE}) = {SIZE} True"]
        with pytest.raises(RegistrationError, match="EOPNOTSUPP"):
            register_kprobe(Kprobe(symbol_name="vfs_write", post_handler=after))


def of_dd(p, regs):
    if comm() == "dd" and regs_get_kernel_argument(regs, 2) == SIZE:
        printk(f"pre {SIZE} {instruction_pointer(regs) - p.addr}")


def entry_of_dd(ri, regs):
    if comm() != "dd" or regs_get_kernel_argument(regs, 2) != SIZE:
        return 1
    ri.data.stamp = now()
    ri.data.size = regs_get_kernel_argument(regs, 2)
    return 0


def jprobe_of_dd(count):
    if comm() == "dd" and count == SIZE:
        printk(f"jprobe {count}")


# Rest and go on, whatever the way in.


@kprobe("vfs_write")
def by_fentry(count):
    if comm() == "calls" and count == SIZE:
        printk("hit")


@kretprobe("vfs_write")
def by_fexit(count):
    ret = yield
    if comm() == "calls" and ret == SIZE:
        printk("hit")


@kretprobe("vfs_write", way="kprobe")
def by_kretprobe(count):
    ret = yield
    if comm() == "calls" and ret == SIZE:
        printk("hit")


@tracepoint("syscalls:sys_enter_write")
def by_tracepoint(count):
    if comm() == "calls" and count == SIZE:
        printk("hit")


@kprobe("vfs_write", "vfs_read", way="kprobe.multi")
def by_multi():
    if comm() == "calls":
        printk("hit")


@pytest.mark.parametrize("probe", [by_fentry, by_fexit, by_kretprobe, by_tracepoint], ids=lambda one: one.handler.name)
def test_a_session_lets_a_probe_rest_and_go_on(guest, probe):
    with guest.attach(probe) as session:
        found = []
        for change in (lambda: None, session.disable, session.enable):
            change()
            guest.call("write", SIZE, HITS)
            found.append(len(list(session.events(0))))
        assert found == [HITS, 0, HITS]
        assert lossless(session) or guest.preemptible


def test_one_link_of_many_places_rests_as_a_whole(newest):
    with newest.attach(by_multi) as session:
        with pytest.raises(UnsupportedError, match="one link serves it and vfs_read"):
            session.disable("vfs_write")
        session.disable()
        newest.call("write", SIZE, HITS)
        assert list(session.events(0)) == []
        session.enable()
        newest.call("write", SIZE, HITS)
        assert len(list(session.events(0))) >= HITS
