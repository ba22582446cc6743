"""Functions run on the emulator as they are and armed, side by side: the same outcome, and each hit counted once."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import unicorn
from unicorn import x86_const as x86

from kprobes.arch.x86_64.decode import Flow
from kprobes.arch.x86_64.detour import Body, Call, CallPolicy, Flags, build, counter, full_policy, handler_call
from kprobes.arch.x86_64.image import Function, Image
from kprobes.arch.x86_64.liveness import dead_at
from kprobes.arch.x86_64.patch import Tactic
from kprobes.arch.x86_64.sites import SitePlan

from .emulator import _IDS, DATA, FLAGS, PAGE, STACK, STACK_SIZE, State, arbitrary
from .libc import SLIDE

LIMIT = 300
SLOT = 0x800  # the counter of a detour lies behind it
HANDLER = 0x5555_7000_0000

# A handler that counts at its context argument, and loses whatever a C function may lose: flags and scratch registers.
HANDLER_CODE = bytes.fromhex(
    "48ff06"  # inc qword [rsi]
    "488b4770"  # mov rax, [rdi + 0x70]: di as pt_regs has it
    "48894608"  # mov [rsi + 8], rax
    "488b8798000000"  # mov rax, [rdi + 0x98]: sp
    "48894610"  # mov [rsi + 0x10], rax
    "31c9 31d2 4831f6 4831ff 4531c0 4531c9 4531d2 4531db"  # clear cx dx si di r8-r11
    "b800000080 01c0"  # mov eax, 1 << 31; add eax, eax: carry, overflow, zero
    "31c0 c3"  # xor eax, eax; ret
)


@dataclass
class Outcome:
    registers: dict[str, int]
    flags: int
    memory: dict[int, bytes]
    ip: int
    hits: Counter[int] = field(default_factory=Counter)
    args: dict[int, tuple[int, int]] = field(default_factory=dict)


class Unrunnable(Exception):
    """The emulator doesn't know an instruction, or the run is too long."""


Content = Callable[[int], bytes]
MakeBody = Callable[[Image, int, int, bool], Body]


def _system_call(engine: unicorn.Uc, _data: object) -> None:
    # As a kernel does it, but for rcx, where the copy's address would be instead of the original's.
    for name in ("ax", "cx", "r11"):
        engine.reg_write(_IDS[name], 0)


class Trace:
    """Follows a run, and ends it where the function is left. Unarmed, it counts hits and notes where jumps arrive."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.hits = Counter[int]()
        self.armed = bool(world.detours)
        self._left = LIMIT * (40 if self.armed else 1)
        self._last = 0
        self._ends = {item.address: item.end for item in world.function.instructions}
        # The emulator reports each round of a string instruction; a probe is hit once.
        self._strings = {item.address for item in world.function.instructions if item.code[0] in (0xF2, 0xF3)}

    def step(self, engine: unicorn.Uc, address: int, _size: int, _data: object) -> None:
        self._left -= 1
        if self._left < 0 or not self.world.inside(address):
            engine.emu_stop()
        if not self.armed:
            self._note(address)
        self._last = address

    def _note(self, address: int) -> None:
        again = address == self._last and address in self._strings
        if address != self._ends.get(self._last, address) and not again:
            self.world.arrivals.add(address)
        if address in self.world.watched and not again:
            self.hits[address] += 1


@dataclass
class World:
    """A function of the image in an emulator: its pages, patches over them, and detours; other memory on demand."""

    function: Function
    content: Content  # what a page holds at first
    writes: list[tuple[int, bytes]] = field(default_factory=list)
    detours: dict[int, bytes] = field(default_factory=dict)
    arrivals: set[int] = field(default_factory=set)  # where an unarmed run has jumped to
    watched: dict[int, int] = field(default_factory=dict)  # site -> counter

    def run(self, state: State) -> Outcome:
        if any(item.flow == Flow.TRANSACTION for item in self.function.instructions):
            raise Unrunnable("the emulator takes xbegin for a mov")
        machine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        machine.ctl_set_cpu_model(x86.UC_CPU_X86_HASWELL)
        mapped: dict[int, bytes] = {}
        self._map(machine, mapped, DATA, state.data)
        for page in range(0, STACK_SIZE, PAGE):
            self._map(machine, mapped, STACK + page, state.stack[page : page + PAGE])
        for address, code in self.detours.items():
            for page in range(address & -PAGE, address + len(code) + SLOT + 8, PAGE):
                if page not in mapped:
                    self._map(machine, mapped, page, bytes(PAGE))
            machine.mem_write(address, code)
        if self.detours:
            self._map(machine, mapped, HANDLER, HANDLER_CODE.ljust(PAGE, b"\xcc"))
        for page in range(self.function.start & -PAGE, self.function.end, PAGE):
            self._map(machine, mapped, page, self.content(page))
        for address, code in self.writes:
            if address & -PAGE not in mapped:
                self._map(machine, mapped, address & -PAGE, self.content(address & -PAGE))
            machine.mem_write(address, code)
        for name, value in state.registers.items():
            machine.reg_write(_IDS[name], value)
        machine.reg_write(x86.UC_X86_REG_EFLAGS, state.flags | 2)
        machine.reg_write(x86.UC_X86_REG_FS_BASE, state.fs)
        return self._go(machine, mapped)

    def _map(self, machine: unicorn.Uc, mapped: dict[int, bytes], page: int, content: bytes) -> None:
        machine.mem_map(page, PAGE)
        machine.mem_write(page, content)
        mapped[page] = content

    def inside(self, address: int) -> bool:
        if self.function.start <= address < self.function.end or HANDLER <= address < HANDLER + len(HANDLER_CODE):
            return True
        if any(start <= address < start + len(code) for start, code in self.detours.items()):
            return True
        return any(start <= address < start + len(code) for start, code in self.writes)

    def _go(self, machine: unicorn.Uc, mapped: dict[int, bytes]) -> Outcome:
        trace = Trace(self)

        def on_demand(engine: unicorn.Uc, _kind: int, address: int, size: int, _value: int, _data: object) -> bool:
            for page in {address & -PAGE, (address + size - 1) & -PAGE}:
                if page not in mapped and 0 < page < 2**47 - PAGE:
                    self._map(engine, mapped, page, self.content(page))
            return len(mapped) < 64

        machine.hook_add(unicorn.UC_HOOK_INSN, _system_call, aux1=x86.UC_X86_INS_SYSCALL)
        machine.hook_add(unicorn.UC_HOOK_CODE, trace.step)
        machine.hook_add(unicorn.UC_HOOK_MEM_READ_UNMAPPED | unicorn.UC_HOOK_MEM_WRITE_UNMAPPED, on_demand)
        try:
            machine.emu_start(self.function.start, 0)
        except unicorn.UcError as error:
            if error.errno != unicorn.UC_ERR_FETCH_UNMAPPED:
                raise Unrunnable(str(error)) from error
        if self.inside(machine.reg_read(x86.UC_X86_REG_RIP)):
            raise Unrunnable("too long")
        return self._outcome(machine, mapped, trace.hits)

    def _outcome(self, machine: unicorn.Uc, mapped: dict[int, bytes], hits: Counter[int]) -> Outcome:
        registers = {name: machine.reg_read(number) for name, number in _IDS.items()}
        own = {
            page
            for start, code in self.detours.items()
            for page in range(start & -PAGE, start + len(code) + SLOT, PAGE)
        }
        # Patched text differs as it should.
        memory = {
            page: bytes(machine.mem_read(page, PAGE))
            for page in mapped
            if page not in own
            and page != HANDLER
            and not STACK - 2**24 <= page < STACK + STACK_SIZE
            and not SLIDE <= page < SLIDE + 2**32
        }
        memory[STACK] = bytes(machine.mem_read(STACK, STACK_SIZE))
        outcome = Outcome(
            registers,
            machine.reg_read(x86.UC_X86_REG_EFLAGS) & FLAGS,
            memory,
            machine.reg_read(x86.UC_X86_REG_RIP),
            hits,
        )
        if self.detours:
            for site, slot in self.watched.items():
                count, di, sp = struct.unpack("<QQQ", machine.mem_read(slot, 24))
                outcome.hits[site] = count
                outcome.args[site] = (di, sp)
        return outcome


def counted(_: Image, site: int, slot: int, _pushed: bool) -> Body:
    return counter(slot, flags=Flags.KEPT)


def counted_lazily(of: Image, site: int, slot: int, _pushed: bool) -> Body:
    """What is dead isn't saved."""
    dead = dead_at(of, site)
    return counter(slot, flags=Flags.DEAD if dead.flags else Flags.KEPT, dead=dead.registers)


def called(_: Image, site: int, slot: int, pushed: bool) -> Body:
    policy = CallPolicy(show=frozenset({"di", "sp", "ip"}), pushed=pushed)
    return handler_call(Call(HANDLER, slot, site, policy))


def called_lazily(of: Image, site: int, slot: int, pushed: bool) -> Body:
    dead = dead_at(of, site)
    # The handler does lose all scratch registers: those that are dead are seen to be lost.
    policy = CallPolicy(
        keep=tuple(name for name in CallPolicy().keep if name not in dead.registers),
        show=frozenset({"di", "sp"}),
        flags=Flags.DEAD if dead.flags else Flags.KEPT,
        pushed=pushed,
    )
    return handler_call(Call(HANDLER, slot, site, policy))


def called_in_full(_: Image, site: int, slot: int, pushed: bool) -> Body:
    return handler_call(Call(HANDLER, slot, site, full_policy(pushed=pushed)))


BODIES = [counted, counted_lazily, called, called_lazily, called_in_full]


def arm(image: Image, content: Content, function: Function, plans: list[SitePlan], body: MakeBody) -> World:
    """Return *function* with *plans* carried out: detours on pages of their own, each with a counter behind it."""
    world = World(function, content)
    at = (image.end + 0x20_0000) & -PAGE
    for patch in {id(plan.patch): plan.patch for plan in plans if plan.patch}.values():
        place = patch.reach.low if patch.tactic == Tactic.PUN else at
        victim_at = at + PAGE
        at += 2 * PAGE
        bodies = {}
        for number, site in enumerate(patch.sites):
            world.watched[site] = place + SLOT + 32 * number
            bodies[site] = body(image, site, world.watched[site], patch.pushed)
        world.detours[place] = build(patch, place, bodies).code
        assert len(world.detours[place]) < SLOT
        if patch.victim:
            assert not patch.victim.sites
            world.detours[victim_at] = build(patch.victim, victim_at, {}).code
        world.writes += [tuple(write) for write in patch.writes(place, victim_at)]
    return world


def same_stack(state: State, first: Outcome, second: Outcome) -> None:
    """Compare all above the stack pointer that the function wrote, or that was there when it was called.

    What it only made room for may hold what a body left there, as it may hold what any signal handler left.
    """
    before, one, other = state.stack, first.memory[STACK], second.memory[STACK]
    initial, final = state.registers["sp"] - STACK, first.registers["sp"] - STACK
    for place in range(max(min(initial, final), 0), STACK_SIZE):
        if place >= initial or one[place] != before[place]:
            assert other[place] == one[place], f"stack byte {STACK + place:#x}"


def compare(armed: World, seed: int, *, flags: bool = True) -> int:
    """Run it armed and not, and return how many hits there were. *flags*: compare the flags at the end, too."""
    plain = World(armed.function, armed.content, watched=dict.fromkeys(armed.watched, 0))
    state = arbitrary(seed)
    first = plain.run(state)
    second = armed.run(state)
    assert second.ip == first.ip
    assert second.registers == first.registers
    assert not flags or second.flags == first.flags
    for page, content in first.memory.items():
        if page == STACK:
            same_stack(state, first, second)
        else:
            assert second.memory.get(page) == content, f"{page:#x}"
    assert +second.hits == +first.hits
    return first.hits.total()
