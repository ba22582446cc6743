"""Where registered probes go: the spelling of the place for a target, its address, and what stands behind it."""

from __future__ import annotations

from pathlib import Path

from kprobes.arch.registers import X86_64, registers
from kprobes.arch.x86_64.decode import Flow, decode
from kprobes.errors import RegistrationError, SymbolNotFoundError
from kprobes.kapi.handlers import Spot, wants_next
from kprobes.kapi.objects import Kretprobe
from kprobes.symbols.file import resolve_in_process
from kprobes.symbols.objects import ProcessObjects

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.arch.x86_64.decode import Instruction
    from kprobes.engines.port import Engine
    from kprobes.kapi.objects import Kprobe, Registrable
    from kprobes.model.plan import Site
    from kprobes.symbols.kernel import KernelSymbols

FTRACE_CALL = 5  # bytes at a function's entry that ftrace rewrites; a probe there is called by it
ENDBR = b"\xf3\x0f\x1e\xfa"
_INT3 = b"\xcc"


class KernelPlaces:
    """Places in one kernel. Code is read once, so that later probes don't hide what stands below them."""

    def __init__(self, engine: Engine) -> None:
        self._facts = engine.facts()
        self._symbols: KernelSymbols | None = None
        self._code: dict[int, bytes | None] = {}

    @property
    def symbols(self) -> KernelSymbols:
        """Return the kernel's symbols."""
        if self._symbols is None:
            from kprobes.symbols.kernel import KernelSymbols

            self._symbols = KernelSymbols(self._facts)
        return self._symbols

    def spot(self, thing: Registrable) -> Spot:
        """Return where *thing* goes, and what is to be known of the instruction there.

        Raises:
            RegistrationError, KprobesError: it can't go there.
        """
        place = spelled(thing.kp)
        if isinstance(thing, Kretprobe):
            if self.is_entry(place):
                site = self.symbols.resolve(place).found[0].site
                place = place.rpartition("+")[0] or f"{site.address:#x}" if site.offset else place
            return Spot(place, native=False, returns_to=self._returns_to())
        if not wants_next(thing):
            return Spot(place, native=False)
        if self._facts.features.machine != X86_64.name:
            what = (
                f"no post_handler can run behind {place}: instructions of {self._facts.features.machine} are not known"
            )
            raise RegistrationError(what, "EOPNOTSUPP", hint="probe the next instruction by a Kprobe of its own")
        item, end = self._instruction(place)
        return self._with_next(place, item, end)

    def _returns_to(self) -> str:
        """Return the register that has the return address at a return. Before 5.16 it isn't told: the kernel's own
        trampoline stands there."""
        features = self._facts.features
        return registers(features.machine).instruction_pointer if features.attach_cookie else "none"

    def is_entry(self, place: str) -> bool:
        """Tell whether *place* is where a function is entered: its first instruction, or what follows an ENDBR64."""
        site = self.symbols.resolve(place).found[0].site
        return not site.offset or (site.offset == self._behind_endbr(site.address, site.offset))

    def _behind_endbr(self, start: int, offset: int) -> int:
        from kprobes.arch.x86_64.kernel_rules import KernelCode

        return KernelCode(start, self._read(start, max(offset, FTRACE_CALL)) or b"").entry - start

    def address(self, place: str) -> int:
        """Return the address of the instruction that a probe at *place* is put on, 0 where addresses are hidden."""
        site = self.symbols.resolve(place).found[0].site
        offset = site.offset or self._behind_endbr(site.address, 0)
        return site.address + offset if site.address else 0

    def lookup(self, name: str) -> int:
        """Return the address of the symbol *name*, code or data."""
        return self.symbols.table.kallsyms_lookup_name(name)

    def state(self, address: int) -> frozenset[str]:
        """Return the words that the kernel's own list has for the probe at *address*: FTRACE, OPTIMIZED, GONE."""
        text = self._facts.text("kprobes") or ""
        lines = (line for line in text.splitlines() if line.partition(" ")[0].lstrip("0") == f"{address:x}")
        return frozenset(word.strip("[]") for line in lines for word in line.split() if word.startswith("["))

    def _instruction(self, place: str) -> tuple[Instruction, int]:
        """Return the instruction that a probe at *place* runs, and where its function ends.

        Raises:
            RegistrationError: EILSEQ, or EOPNOTSUPP: the code can't be read.
        """
        found = self.symbols.resolve(place, traceable=True).found[0]
        start, wanted = found.site.address, found.site.offset
        code = self._read(start, found.size) if start else None
        if not code:
            hint = "run as root on a kernel with /proc/kcore, or leave the post_handler out"
            raise RegistrationError(f"the code of {place} can't be read for its post_handler", "EOPNOTSUPP", hint=hint)
        entry = self._behind_endbr(start, len(code))
        offset = entry if wanted in (0, entry) else wanted
        if offset == entry and found.traceable:
            nop = code[offset : offset + FTRACE_CALL]
            return decode(b"\x0f\x1f\x44\x00\x00"[: len(nop)], start + offset)[0], start + len(code)
        for item in decode(code, start):
            if item.address == start + offset:
                return item, start + len(code)
        hint = f"`kprobes explain {found.site.symbol}` shows where its instructions begin"
        raise RegistrationError(f"{place} is not the beginning of an instruction", "EILSEQ", hint=hint)

    def _with_next(self, place: str, item: Instruction, end: int) -> Spot:
        from kprobes.arch.x86_64.behind import stack_change

        moved = stack_change(item) if item.flow == Flow.NEXT and not item.refusal else None
        if moved is None or item.end >= end or item.code[:1] == _INT3:
            hidden = item.code[:1] == _INT3
            why = "another probe hides the code" if hidden else f"`{item.text}` may lead elsewhere"
            hint = "leave the post_handler out, or probe the instructions that it leads to"
            raise RegistrationError(f"no post_handler can run behind {place}: {why}", "EOPNOTSUPP", hint=hint)
        return Spot(place, False, f"{item.end:#x}", len(item.code), moved)

    def _read(self, address: int, size: int) -> bytes | None:
        known = self._code.get(address)
        if known is None or len(known) < size:
            self._code[address] = self._facts.memory(address, size)
        return self._code[address]


class ProcessPlaces:
    """Places in the code of one process."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def spot(self, thing: Registrable) -> Spot:
        """Return where *thing* goes: a bare address as a place in the file that is mapped there.

        Raises:
            RegistrationError: EINVAL: there is no code of a file.
        """
        place = spelled(thing.kp)
        if thing.kp.asked_addr:
            place = self._in_file(thing.kp.asked_addr + thing.kp.offset)
        if isinstance(thing, Kretprobe):
            place = self._entry(place)
        return Spot(place, native=True)

    def _entry(self, place: str) -> str:
        """Return *place*, or where its function begins if it is what follows an ENDBR64 there."""
        if not self.is_entry(place):
            return place
        name, behind, _ = place.rpartition("+")
        if behind:
            return name
        try:
            site = self._site(place)
        except SymbolNotFoundError:  # its library is yet to come
            return place
        return f"{site.path}:{site.address:#x}" if site.offset else place

    def is_entry(self, place: str) -> bool:
        """Tell whether *place* is where a function is entered: its first instruction, or what follows an ENDBR64."""
        try:
            site = self._site(place)
        except SymbolNotFoundError:  # its library is yet to come, or gone
            return "+" not in place
        if not site.symbol or not site.offset:
            return bool(site.symbol)
        with Path(site.path).open("rb") as file:
            file.seek(site.address)
            return site.offset == len(ENDBR) and file.read(len(ENDBR)) == ENDBR

    def address(self, place: str) -> int:
        """Return the address of *place* in the process, 0 where it isn't mapped."""
        try:
            site = self._site(place)
        except SymbolNotFoundError:
            return 0
        offset = site.address + site.offset
        for one in ProcessObjects(self._pid).all():
            for part in one.mappings:
                if (
                    one.path == site.path
                    and part.is_code
                    and part.offset <= offset < part.offset + part.end - part.start
                ):
                    return part.start + offset - part.offset
        return 0

    def lookup(self, name: str) -> int:
        """Return the address of the function *name*."""
        self._site(name)
        return self.address(name)

    def _site(self, place: str) -> Site:
        return resolve_in_process(place, self._pid).found[0].site

    def _in_file(self, address: int) -> str:
        for one in ProcessObjects(self._pid).all():
            for part in one.mappings:
                if part.start <= address < part.end and part.is_code:
                    return f"{one.path}:{address - part.start + part.offset:#x}"
        what = f"{address:#x} is not code of a file that process {self._pid} has mapped"
        raise RegistrationError(what, "EINVAL", hint="name a function, or an address of its code")


def spelled(kp: Kprobe) -> str:
    """Return the place of *kp*.

    Raises:
        RegistrationError: EINVAL: it has no place, or two.
    """
    if bool(kp.symbol_name) == bool(kp.asked_addr):
        what = "a place is given twice" if kp.symbol_name else "no place is given"
        hint = "exactly one of symbol_name= and addr="
        raise RegistrationError(what, "EINVAL", hint=hint)
    if any(letter in kp.symbol_name for letter in "*?[@"):
        hint = "one symbol; patterns and source lines go to @kprobe and @uprobe"
        raise RegistrationError(f"{kp.symbol_name} is no symbol", "EINVAL", hint=hint)
    if kp.offset < 0 or kp.asked_addr < 0:
        raise RegistrationError(f"{kp.place}: a negative offset", "EINVAL", hint="offsets count from the symbol on")
    return f"{kp.asked_addr + kp.offset:#x}" if kp.asked_addr else kp.place
