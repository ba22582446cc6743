"""Whether the kernel registers a kprobe that is well written: what the symbol table says of its place.

Without a table, every symbol exists, is unique, is a function, and can be probed.
"""

from __future__ import annotations

from errno import EINVAL, ENOENT

from kprobes.grammar.fetch import split_offset
from kprobes.grammar.numbers import signed
from kprobes.grammar.refusal import Refused
from kprobes.model.definition import AddressPlace, Field, KernelPlace, Memory, SymbolAddress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.grammar.facts import Dialect
    from kprobes.grammar.world import World
    from kprobes.model.definition import Definition, Term


class Registration:
    """Answers what the kernel finds out about places, by a world's symbols or by what can be known without."""

    def __init__(self, dialect: Dialect, world: World) -> None:
        self._dialect = dialect
        self._symbols = world.symbols
        self._cpus = world.cpus
        self._refusals: dict[tuple[int, bool], int] = {}

    def count(self, name: str) -> int:
        """Return how many symbols *name* means (1: one, and also where the module isn't there yet)."""
        symbols = self._symbols
        if symbols is None:
            return 1 if name else 0
        module, colon, plain = name.partition(":")
        if colon:
            return symbols.count(plain, module) if symbols.has_module(module) else 1
        own = symbols.count(name, "")
        return own if own and self._dialect.own_first else own + symbols.count(name, None)

    def entry(self, place: KernelPlace) -> int:
        """Return 0 if *place* is a function's entry, EINVAL if it is not, ENOENT if there is no such place."""
        symbols = self._symbols
        if symbols is None:
            return (
                0
                if place.offset == 0 or (place.offset == self._dialect.machine.endbr and self._dialect.btf)
                else EINVAL
            )
        address = symbols.address(place.symbol)
        return self._entry_at((address + place.offset) % (1 << self._dialect.machine.bits)) if address else ENOENT

    def _entry_at(self, address: int) -> int:
        if self._symbols is None:
            return 0
        offset = self._symbols.offset_at(address)
        if offset < 0:
            return ENOENT
        behind = offset == self._dialect.machine.endbr and self._dialect.folded
        return 0 if offset == 0 or (behind and self._symbols.begins_with_endbr(address - offset)) else EINVAL

    def register(self, definition: Definition) -> int:
        """Return the maxactive that the kernel will list: its own choice where *definition* names none.

        Raises:
            Refused: the kernel doesn't register the probe.
        """
        place = definition.place
        error = self._notrace(place) or self._arguments(definition) or self._place(definition)
        if error == ENOENT and not self._module_exists(place):
            return definition.maxactive
        if error:
            code = {ENOENT: "BAD_PROBE_ADDR", 84: "BAD_INSN_BNDRY"}.get(error, "FAIL_REG_PROBE")
            raise Refused(code, 1, 0, error)
        if not definition.is_return:
            return 0
        if definition.maxactive > 0:
            return definition.maxactive
        return max(10, 2 * self._cpus) if self._dialect.symstr else self._cpus

    def _notrace(self, place: object) -> int:
        if self._symbols is None:
            return 0
        if isinstance(place, AddressPlace):
            address = place.address
        else:
            assert isinstance(place, KernelPlace)
            address = self._symbols.address(place.symbol)
            address += place.offset if address else 0
        return EINVAL if address and self._symbols.is_notrace(address) else 0

    def _place(self, definition: Definition) -> int:
        place, symbols = definition.place, self._symbols
        if isinstance(place, AddressPlace):
            address = place.address
            if not address:
                return EINVAL
            if symbols is None and address < self._dialect.machine.kernel_half:
                return ENOENT if definition.is_return or self._dialect.deferred_address else EINVAL
        else:
            assert isinstance(place, KernelPlace)
            address = symbols.address(place.symbol) if symbols is not None else 0
            if symbols is not None and not address:
                return ENOENT
            address += place.offset
        if symbols is None:
            return 0
        known = self._refusals.get((address, definition.is_return))
        if known is None:
            known = self._refusals[address, definition.is_return] = self._refusal_at(address, definition.is_return)
        return known

    def _refusal_at(self, address: int, is_return: bool) -> int:
        assert self._symbols is not None
        offset = self._symbols.offset_at(address)
        if is_return:
            entry = self._entry_at(address)
            if entry:
                return entry
        if offset < 0:
            return ENOENT if self._dialect.deferred_address else EINVAL
        endbr = self._dialect.machine.endbr
        if endbr and self._dialect.folded and offset == 0 and self._symbols.begins_with_endbr(address):
            address += endbr
        return self._symbols.refusal(address)

    def _module_exists(self, place: object) -> bool:
        """Return whether the kernel holds a missing symbol against the probe: an address names no module."""
        if not isinstance(place, KernelPlace):
            return False
        module, colon, _ = place.symbol.partition(":")
        return not colon or (self._symbols is not None and self._symbols.has_module(module))

    def _arguments(self, definition: Definition) -> int:
        """Return the errno for the symbols that the arguments name."""
        for argument in definition.arguments:
            if "@" in argument.body:
                error = self._term(argument.term)
                if error:
                    return error
        return 0

    def _term(self, term: Term) -> int:
        while isinstance(term, Memory | Field):
            term = term.base
        if not isinstance(term, SymbolAddress):
            return 0
        name, distance = split_offset(term.name)
        if distance:
            return signed(distance, self._dialect.machine.bits)[1]
        if self._symbols is None:
            return 0 if name else ENOENT
        return 0 if self._symbols.address(name) else ENOENT
