"""What an expression of a handler stands for while it is compiled.

Some terms exist at compile time only (constants, maps, functions), others name values of the IR. A term of the second
sort says how it is to be shown and what is known of its range.
"""

from __future__ import annotations

from kprobes.compiler.ir.nodes import I64, U64, IntType, Slot, Value
from kprobes.frozen import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kprobes.compiler.ir.nodes import Operand
    from kprobes.model.ctype import CType, Enum
    from kprobes.model.layout import MapLayout
    from kprobes.model.mapspec import MapSpec
    from kprobes.model.structs import Shape

I64_MIN, I64_MAX, U64_MAX = -(1 << 63), (1 << 63) - 1, (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Constant:
    """An integer known at compile time, of any size until it meets a value. *kind* is `int`, `bool` or `hex`."""

    value: int
    kind: str = "int"


@dataclass(frozen=True, slots=True)
class Literal:
    """A string known at compile time."""

    text: str


@dataclass(frozen=True, slots=True)
class Nothing:
    """`None`: a null pointer where a pointer is wanted."""


@dataclass(frozen=True, slots=True)
class Number:
    """A 64-bit integer or a truth value at run time.

    *kind* tells how it is shown (see `model.layout.Field`), *store* the narrowest type known to hold it, and *low* and
    *high* its range. *enum* has names for its values.
    """

    value: Value
    kind: str
    low: int
    high: int
    store: IntType | None = None
    enum: Enum | None = None


@dataclass(frozen=True, slots=True)
class Pointer:
    """The address *base* + *offset* of a *target*, to be read in *space*.

    *count* is set for an array (which stands for its first element), *embedded* for a struct inside another one, whose
    address can't be null. *text*: it stands for the string there, as C's `const char *` mostly does.
    """

    base: Value
    offset: int
    target: CType
    space: str
    count: int | None = None
    embedded: bool = False
    text: bool = False


@dataclass(frozen=True, slots=True)
class Text:
    """A string of at most *size* - 1 bytes: it lies in *slot*, or *fill* makes the node that reads it into one."""

    size: int
    slot: Slot | None = None
    fill: Callable[[Slot], object] | None = None


@dataclass(frozen=True, slots=True)
class Items:
    """A tuple."""

    items: tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class Made:
    """A struct of the user's own, made by calling its class: *items* in the order of its members."""

    shape: Shape
    items: tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class Map:
    """A map of the user's."""

    spec: MapSpec
    layout: MapLayout


@dataclass(frozen=True, slots=True)
class Outside:
    """A Python object that handlers can only look into or call: a module, a class, a function. *path* is its name."""

    thing: object
    path: str


@dataclass(frozen=True, slots=True)
class Word:
    """A builtin of the language, by name."""

    name: str


@dataclass(frozen=True, slots=True)
class Bound:
    """A method: *name* of *owner*, not yet called."""

    owner: Term
    name: str


@dataclass(frozen=True, slots=True)
class RecordArray:
    """An array of integers inside a tracepoint's record, *count* times *element* from *offset*."""

    offset: int
    element: IntType
    count: int


@dataclass(frozen=True, slots=True)
class Everything:
    """`**arguments`: all parameters of the probed function, by name."""


@dataclass(frozen=True, slots=True)
class Fields:
    """Fields of an event that are ready to be sent, as `make` gives them: (name, kind, operand) each."""

    make: Callable[[], Sequence[tuple[str, str, Operand]]]


Term = (
    Constant
    | Literal
    | Nothing
    | Number
    | Pointer
    | Text
    | Items
    | Made
    | Map
    | Outside
    | Word
    | Bound
    | RecordArray
    | Everything
    | Fields
)


def limits(kind: IntType) -> tuple[int, int]:
    """Return the least and the greatest value of an integer type."""
    if kind.signed:
        return -(1 << (kind.bits - 1)), (1 << (kind.bits - 1)) - 1
    return 0, (1 << kind.bits) - 1


def integer(value: Value, kind: str = "", store: IntType | None = None) -> Number:
    """Return the term of an i64, u64 or bool *value* about which nothing more is known than its *store*."""
    low, high = limits(store or value.type)
    default = "bool" if value.type.bits == 1 else "int" if value.type.signed else "uint"
    return Number(value, kind or default, low, high, store)


def ranged(value: Value, known: tuple[int, int] | None) -> Number:
    """Return the term of an i64 or u64 *value* that lies in the range *known*, unless that may have wrapped."""
    low, high = limits(value.type)
    if known and low <= known[0] and known[1] <= high:
        low, high = known
    return Number(value, "int" if value.type.signed else "uint", low, high)


def widened(narrow: IntType) -> IntType:
    """Return the 64-bit type in which an integer of type *narrow* is computed with.

    All that fits into i64 becomes i64, so that differences of small unsigned fields can be negative as in Python.
    """
    return U64 if narrow == U64 else I64


def is_static(term: Term) -> bool:
    """Tell whether *term* is the same in both parts of a handler: it names no value of the hit."""
    if isinstance(term, Items | Made):
        return all(is_static(item) for item in term.items)
    return isinstance(term, Constant | Literal | Nothing | Map | Outside | Word | Everything)


def describe(term: Term) -> str:
    """Return what *term* is, in a user's words."""
    if isinstance(term, Constant | Number):
        return {"stack": "a stack", "user_stack": "a user stack", "bool": "a truth value"}.get(term.kind, "an integer")
    if isinstance(term, Literal | Text):
        return "a string"
    if isinstance(term, Pointer):
        from kprobes.model.ctype import Array, format_ctype
        from kprobes.model.ctype import Pointer as CPointer

        if term.embedded and term.count is None:
            return f"a {format_ctype(term.target)}"
        shape = Array(term.target, term.count) if term.count is not None else CPointer(term.target)
        return f"a {format_ctype(shape)}"
    if isinstance(term, Made):
        return f"a {term.shape.name}"
    if isinstance(term, Map):
        return f"the map {term.spec.name}"
    if isinstance(term, Word):
        return f"the builtin {term.name}"
    if isinstance(term, Outside):
        kind = "class" if isinstance(term.thing, type) else type(term.thing).__name__
        kind = "type" if type(term.thing).__module__ == "kprobes.model.cwords" else kind
        return f"the Python {kind} {term.path}"
    names = {
        Nothing: "None",
        Items: "a tuple",
        Fields: "the fields of an event",
        Bound: "a method",
        RecordArray: "an array",
    }
    return names.get(type(term), "the parameters")
