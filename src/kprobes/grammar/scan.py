"""The state of one argument's parse: where it is fetched, and how far the kernel's operations have come."""

from __future__ import annotations

from errno import EINVAL

from kprobes.grammar.facts import MAX_OPERATIONS
from kprobes.grammar.refusal import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.grammar.facts import Dialect
    from kprobes.model.ctype import CType, Function, Types

# What an operation fetched; which types go with it depends on that.
VALUE, MEMORY, USER_MEMORY, IMMEDIATE, COMM, DATA, ENTRY_DATA, STACK_POINTER = range(8)


class Site:
    """Where arguments are fetched: in the kernel or not, at a function's entry, at its return.

    *function* is the prototype where there is one; *types* tells of structures, None where no types are known at all.
    """

    __slots__ = ("at_entry", "at_return", "character_ids", "function", "in_kernel", "returning", "types")

    def __init__(self, in_kernel: bool, *, at_entry: bool, returning: bool) -> None:
        self.in_kernel = in_kernel
        self.at_entry = in_kernel and at_entry and not returning
        self.at_return = in_kernel and returning
        self.returning = returning
        self.function: Function | None = None
        self.types: Types | None = None
        self.character_ids: frozenset[int] = frozenset()


class Scan:
    """The state of one argument's parse: the caret's *offset* in the argument, operations so far, the type reached.

    *guessed* is set once the type can't be known.
    """

    __slots__ = ("bit_offset", "bit_size", "dialect", "guessed", "index", "last", "offset", "site", "type")

    def __init__(self, dialect: Dialect, site: Site, offset: int) -> None:
        self.dialect = dialect
        self.site = site
        self.offset = offset
        self.index = 0
        self.last = VALUE
        self.type: CType | None = None
        self.guessed = False
        self.bit_offset = 0
        self.bit_size = 0

    @property
    def bits(self) -> int:
        """Return how many bits a `long` has."""
        return self.dialect.machine.bits

    def refuse(self, code: str, ahead: int = 0, number: int = EINVAL) -> Refused:
        """Return the refusal *code* with its caret *ahead* bytes from here."""
        return Refused(code, 0, self.offset + ahead, number)

    def step(self) -> None:
        """Go on to the next operation of a term."""
        self.index += 1
        if self.index == MAX_OPERATIONS:
            raise self.refuse("TOO_MANY_OPS")
