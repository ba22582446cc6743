"""Step by step, what arming a kprobe at a place in a kernel does, on the kernel's own bytes; nothing is armed."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING

from kprobes.arch.x86_64.decode import Instruction, decode
from kprobes.arch.x86_64.kernel_rules import (
    JUMP,
    KernelCode,
    boost_room,
    copied,
    emulated,
    jump_region,
    unboostable,
    unsupported,
    why_no_jump,
)
from kprobes.errors import UnprobeableError, UnsupportedError
from kprobes.frozen import dataclass
from kprobes.model.explained import WIDE, Explained, Outcome, Step, shown
from kprobes.symbols.kernel import PLACE, KernelSymbols, parse_offset

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kprobes.model.facts import Facts
    from kprobes.symbols.kallsyms import KernelSymbol

MOST_CODE = 1 << 20  # bytes of one function that are looked at
# Where the kernel puts slots and detours: somewhere in the modules' area. The real place is known once it is armed.
_ASSUMED_SLOT = 0xFFFF_FFFF_C000_0000
_PROBE, _CALL = b"\x48\xbf" + bytes(8), b"\xe8" + bytes(4)
_EXCEPTION, _JUMP_ENTRY, _STATIC_CALL = 12, 16, 8
_NOP5 = b"\x0f\x1f\x44\x00\x00"


@dataclass(frozen=True, slots=True)
class _Site:
    """The place: *symbol* + *offset*, as asked and (at a function's entry) behind its ENDBR64."""

    symbol: KernelSymbol
    offset: int
    traceable: bool | None
    refusal: str

    @property
    def address(self) -> int:
        return self.symbol.address + self.offset


def explain_kernel(place: str, facts: Facts) -> Explained:
    """Return the steps of arming a kprobe at *place* of the kernel that *facts* describe.

    Raises:
        UsageError, SymbolNotFoundError, AmbiguousSymbolError: *place* means no one place.
        UnprobeableError: it is no code, or the kernel's memory can't be read.
        UnsupportedError: the kernel is of another architecture than x86-64.
    """
    machine = facts.features.machine
    if machine != "x86_64":
        raise UnsupportedError(
            f"what arming a probe does is known for x86-64, and this kernel is {machine}",
            hint="probes work there: `kprobes info` tells by which ways",
        )
    return KernelText(facts).explain(place)


class KernelText:
    """The code of one kernel as it is in memory, with the tables of what the kernel rewrites; each is read once."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._symbols = KernelSymbols(facts)

    def explain(self, place: str) -> Explained:
        """Return the steps of arming a kprobe at *place*; raises as `explain_kernel`."""
        site = _find(place, self._symbols)
        code = self._code_of(site)
        steps = list(_steps(site, code, self._template))
        refused = next((step for step in steps if step.outcome == Outcome.REFUSED), None)
        name = f"{site.symbol.name}+{site.offset:#x}"
        way = _way(steps) if refused is None else ""
        return Explained(name, site.address, way, refused.error if refused else "", tuple(steps))

    def _code_of(self, site: _Site) -> KernelCode:
        start, size = site.symbol.address, min(self._symbols.table.size_of(site.symbol), MOST_CODE)
        code = self._facts.memory(start, size)
        if code is None:
            raise UnprobeableError(
                site.symbol.name,
                "the kernel's memory can't be read (/proc/kcore)",
                hint="run as root on a kernel with CONFIG_PROC_KCORE, or add --vm",
            )
        return KernelCode(
            start,
            code,
            exceptions=frozenset(address for address in self._exceptions if start <= address < start + size),
            reserved=dict(self._reserved(site, start, code)),
            thunks=self._thunks,
            entry_text=self._named("__entry_text_start") <= site.address < self._named("__entry_text_end"),
            release=self._release,
        )

    def _reserved(self, site: _Site, start: int, code: bytes) -> Iterator[tuple[int, str]]:
        """Yield the bytes that the kernel rewrites, each with what for."""
        for branch in self._jump_labels:
            if start <= branch < start + len(code):
                size = len(decode(code[branch - start :][:15], branch, cover=1)[0].code)
                yield from ((place, "a jump label (static branch)") for place in range(branch, branch + size))
        for call in self._static_calls:
            if start <= call < start + len(code):
                yield from ((place, "a static call") for place in range(call, call + JUMP))
        if site.traceable:
            entry = KernelCode(start, code).entry
            yield from ((place, "ftrace's call") for place in range(entry, entry + JUMP))

    @cached_property
    def _release(self) -> tuple[int, int]:
        match = re.search(r"version (\d+)\.(\d+)", self._facts.text("version") or "")
        return (int(match[1]), int(match[2])) if match else (1 << 30, 0)

    @cached_property
    def _thunks(self) -> range:
        """Return where the trampolines of indirect branches stand; empty in a kernel without retpolines."""
        start, end = self._named("__indirect_thunk_start"), self._named("__indirect_thunk_end")
        one = self._named("__x86_indirect_thunk_rax")
        return range(start, end + 1) if 0 < start < end else range(one, one + 1) if one else range(0)

    @cached_property
    def _exceptions(self) -> tuple[int, ...]:
        return self._leads(("__start___ex_table", "__stop___ex_table"), _EXCEPTION)

    @cached_property
    def _jump_labels(self) -> tuple[int, ...]:
        return self._leads(("__start___jump_table", "__stop___jump_table"), _JUMP_ENTRY)

    @cached_property
    def _static_calls(self) -> tuple[int, ...]:
        return self._leads(("__start_static_call_sites", "__stop_static_call_sites"), _STATIC_CALL)

    @cached_property
    def _template(self) -> tuple[Instruction, ...]:
        """Return the kernel's template of a detour; what it fills in stands there as one instruction of the right
        size."""
        start, end = self._named("optprobe_template_entry"), self._named("optprobe_template_end")
        code = self._facts.memory(start, end - start) if 0 < start < end < start + 4096 else None
        holes = {self._named("optprobe_template_val"): _PROBE, self._named("optprobe_template_call"): _CALL}
        for address, hole in holes.items():
            if code and start <= address < end:
                code = code[: address - start] + hole + code[address - start + len(hole) :]
        return tuple(decode(code, start)) if code else ()

    def _leads(self, names: tuple[str, str], size: int) -> tuple[int, ...]:
        """Return where the 32-bit self-relative pointers lead that the entries, *size* bytes each, between the symbols
        *names* begin with."""
        start, end = (self._named(name) for name in names)
        content = self._facts.memory(start, end - start) if 0 < start < end else None
        if content is None:
            return ()
        words = memoryview(content[: len(content) // size * size]).cast("i")[:: size // 4]
        return tuple(start + number * size + lead for number, lead in enumerate(words))

    def _named(self, name: str) -> int:
        found = self._symbols.table.lookup(name, "")
        return found[0].address if found else 0


def _way(steps: Sequence[Step]) -> str:
    outcomes = {step.title: step.outcome for step in steps}
    if "ftrace" in outcomes and outcomes["ftrace"] == Outcome.PASSED:
        return "ftrace"
    if outcomes.get("jump") == Outcome.PASSED:
        return "jump"
    if any(step.title == "slot" and step.reason.startswith("none") for step in steps):
        return "emulated"
    return "boosted" if outcomes.get("boost") == Outcome.PASSED else "step"


def _find(place: str, symbols: KernelSymbols) -> _Site:
    match = PLACE.match(place)
    if symbols.table.hidden:
        raise UnprobeableError(place, "kernel addresses are hidden from you", hint="run as root, or add --vm")
    if match is not None and re.fullmatch(r"0x[0-9a-fA-F]+", match["name"]):
        found = symbols.table.symbol_at(int(match["name"], 16) + parse_offset(match["offset"] or "0"))
        if found is None:
            raise UnprobeableError(place, "it is in no function of the kernel")
        symbol, offset = found
    else:
        name = place.partition("+")[0]
        symbol, offset = symbols.function(name), parse_offset(match["offset"] or "0") if match is not None else 0
    size = symbols.table.size_of(symbol)
    if offset >= size:
        raise UnprobeableError(place, f"{symbol.name} has only {size:#x} bytes")
    return _Site(symbol, offset, symbols.is_traceable(symbols.known_as(symbol)), symbols.refusal(symbol, offset))


# The steps.


def _steps(site: _Site, code: KernelCode, template: Sequence[Instruction]) -> Iterator[Step]:
    sweep = code.sweep()
    starts = {item.address: item for item in sweep}
    address = site.address
    head = address in (code.start, code.entry)
    if head:
        address = code.entry
    yield _where(site, code, len(sweep), address)
    yield from _allowed(site, code, address)
    item = starts.get(address)
    if item is None:
        before = max(start for start in starts if start < address)
        why = f"{address:#x} is inside of `{starts[before].text}` at {before:#x}"
        yield Step("boundary", Outcome.REFUSED, why, _listing([starts[before]]), "EILSEQ")
        return
    number = sweep.index(item)
    yield Step(
        "boundary", Outcome.PASSED, f"instruction {number + 1} of the sweep from {site.symbol.name}", _listing([item])
    )
    if head and site.traceable:
        yield from _by_ftrace(item)
        return
    why, error = unsupported(item, code)
    if why:
        yield Step("instruction", Outcome.REFUSED, f"`{item.text}`: {why}", error=error)
        return
    yield from _slot(item, code)
    yield _breakpoint(item)
    yield from _jump(address, code, sweep, template)


def _where(site: _Site, code: KernelCode, count: int, address: int) -> Step:
    lines = []
    if address != site.address:
        raw = code.code[: address - code.start].hex(" ")
        lines.append(f"{raw:<{WIDE}}endbr64 (or the nop put there): a probe on it means what stands behind it")
    module = f" of module {site.symbol.module}" if site.symbol.module else ""
    reason = f"{site.symbol.name}{module}: {len(code.code)} bytes from {code.start:#x}, {count} instructions"
    return Step("function", Outcome.TOLD, reason, tuple(lines))


def _allowed(site: _Site, code: KernelCode, address: int) -> Iterator[Step]:
    if site.refusal:
        yield Step("allowed", Outcome.REFUSED, site.refusal, error="EINVAL")
    elif code.reserved.get(address, "").startswith("a "):
        yield Step(
            "allowed",
            Outcome.REFUSED,
            f"the kernel rewrites these bytes itself: {code.reserved[address]}",
            error="EINVAL",
        )
    elif code.code[address - code.start :][:2] == b"\x0f\x0b":
        yield Step("allowed", Outcome.REFUSED, "a BUG or WARN stands here (ud2)", error="EINVAL")
    else:
        reason = "kernel text, not blacklisted, no jump label, static call or BUG"
        yield Step("allowed", Outcome.PASSED, reason, (_NOTRACE,) if site.traceable is False else ())


_NOTRACE = (
    "but ftrace doesn't reach the function: kprobe_events and perf refuse it (EINVAL), only a module's own probe may"
)


def _by_ftrace(item: Instruction) -> Iterator[Step]:
    state = "a nop while nobody traces" if item.code == _NOP5 else "in use now"
    yield Step(
        "ftrace",
        Outcome.PASSED,
        f"the compiler left room for a call here ({state}); the kernel arms the probe by it, without a breakpoint",
        (
            "hit: the nop is a call of ftrace's trampoline, which saves the registers and runs the handlers",
            "no slot, no single step, no detour: [FTRACE] in the kernel's list of kprobes",
        ),
    )


def _slot(item: Instruction, code: KernelCode) -> Iterator[Step]:
    why = emulated(item) if code.emulates else ""
    if why:
        yield Step("slot", Outcome.TOLD, f"none is run: the kernel emulates `{item.text}`, since {why}")
        return
    copy = copied(item, _ASSUMED_SLOT)
    why = unboostable(item, code)
    boosted = not why and boost_room(item)
    lines = [f"{copy.hex(' '):<{WIDE}}{_text(copy, _ASSUMED_SLOT)}"]
    if boosted:
        lines.append(f"{'e9 .. .. .. ..':<{WIDE}}jmp {item.end:#x}")
    else:
        lines.append(f"{'cc':<{WIDE}}int3" if code.emulates else "(stepped by the trap flag)")
    moved = f", its rip-relative operand aimed at {item.data:#x} anew" if item.data is not None else ""
    yield Step(
        "slot",
        Outcome.TOLD,
        f"copied to an executable slot, here taken to be at {_ASSUMED_SLOT:#x}{moved}",
        tuple(lines),
    )
    if boosted:
        reason = "the copy ends with a jump back: one trap a hit. Not with a post handler, nor on preemptible kernels"
        yield Step("boost", Outcome.PASSED, reason)
    else:
        yield Step("boost", Outcome.OTHER_WAY, f"two traps a hit: {why or 'the slot has no room for the jump back'}")


def _breakpoint(item: Instruction) -> Step:
    armed = b"\xcc" + item.code[1:]
    lines = (
        f"{item.code.hex(' '):<{WIDE}}{item.text}",
        f"{armed.hex(' '):<{WIDE}}int3; the rest stays and is never run",
    )
    return Step(
        "breakpoint",
        Outcome.TOLD,
        f"one byte at {item.address:#x}: the trap runs the handlers, then the step above",
        lines,
    )


def _jump(
    address: int, code: KernelCode, sweep: Sequence[Instruction], template: Sequence[Instruction]
) -> Iterator[Step]:
    why = why_no_jump(code, address, sweep)
    if why:
        yield Step("jump", Outcome.OTHER_WAY, why)
        return
    region = jump_region(code, address)
    reason = f"{len(region)} instructions, {region[-1].end - address} bytes, give way to a 5-byte jump: no trap a hit"
    lines = [f"{'e9 .. .. .. ..':<{WIDE}}jmp to the detour", *_rest(region, address)]
    yield Step("jump", Outcome.PASSED, reason, tuple(lines))
    yield Step(
        "detour",
        Outcome.TOLD,
        "from the kernel's template; the handlers run in its call",
        tuple(_detour(region, template)),
    )


def _rest(region: Sequence[Instruction], address: int) -> list[str]:
    size = region[-1].end - address - JUMP
    raw = b"".join(item.code for item in region)[JUMP:]
    return [f"{raw.hex(' '):<{WIDE}}what is left of the last instruction"] if size else []


def _detour(region: Sequence[Instruction], template: Sequence[Instruction]) -> Iterator[str]:
    """Yield the detour: the kernel's template with what it fills in, the copies, and the jump back."""
    for item in template:
        told = {_PROBE: "mov rdi, the probe", _CALL: "call optimized_callback"}.get(item.code)
        yield shown(item.code, told or item.text)
    at = _ASSUMED_SLOT
    for item in region:
        copy = copied(item, at)
        yield f"{copy.hex(' '):<{WIDE}}{_text(copy, at)}"
        at += len(copy)
    yield f"{'e9 .. .. .. ..':<{WIDE}}jmp {region[-1].end:#x}"


def _listing(items: Sequence[Instruction]) -> tuple[str, ...]:
    return tuple(shown(item.code, item.text, item.address) for item in items)


def _text(code: bytes, address: int) -> str:
    return decode(code, address)[0].text
