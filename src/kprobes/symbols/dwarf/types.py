"""C types out of the debugging information of a program or library: the door of this package.

Types are found by entry, not by name: a program may have several structs of a name, and functions. `ObjectTypes` speaks
for the whole file; of names that mean several things it takes what is defined in the unit that it was asked for first.
"""

from __future__ import annotations

import re

from kprobes.errors import FormatError
from kprobes.model.cnames import builtin_type, canonical_int_name
from kprobes.model.ctype import Array, Enum, Float, Function, Int, Member, Parameter, Pointer, Struct, Void
from kprobes.symbols.dwarf.members import each_member, is_by_reference, member_place
from kprobes.symbols.dwarf.numbers import C_LANGUAGES, RUST, At, Form, Tag
from kprobes.symbols.dwarf.program import DebugProgram, chain_of, entries_in_scopes, name_of, reading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kprobes.model.ctype import CType
    from kprobes.symbols.dwarf.units import Entry, Unit

CHAIN_LIMIT = 64
PARAMETER_LIMIT = 128
ENUMERATOR_LIMIT = 1 << 16
NAMES_LIMIT = 1 << 18
STRUCTS = frozenset({Tag.STRUCTURE, Tag.CLASS, Tag.UNION, Tag.INTERFACE})
_POINTERS = frozenset({Tag.POINTER, Tag.REFERENCE, Tag.RVALUE_REFERENCE})
_TRANSPARENT = frozenset({Tag.TYPEDEF, Tag.CONST, Tag.VOLATILE, Tag.RESTRICT, Tag.ATOMIC, Tag.IMMUTABLE})
_ENUMS = frozenset({Tag.ENUMERATION})
_NAMED = frozenset({Tag.TYPEDEF, Tag.BASE})
_VARIABLES = frozenset({Tag.VARIABLE})
_SUBPROGRAMS = frozenset({Tag.SUBPROGRAM})
_TAGS = {"struct": STRUCTS, "class": STRUCTS, "union": frozenset({Tag.UNION}), "enum": _ENUMS}
_QUALIFIERS = re.compile(r"\b(?:const|volatile|restrict|__user)\b")
_SPELLING = re.compile(r"(?P<name>.*?)\s*(?P<stars>(?:[*&]\s*)*)(?P<count>\[\s*\d{1,9}\s*\])?\s*\Z", re.DOTALL)
_NOT_CALLABLE = 3
_BOOLEAN, _FLOATS, _SIGNED = 2, frozenset({3, 4}), frozenset({5, 6, 0xD})
_SIZES = (1, 2, 4, 8, 16)
_UNKNOWN_TYPE = Struct("(unknown)", 0, False, 0)


class ObjectTypes:
    """The types of the program or library whose debugging information lies in the file *path*.

    Raises:
        FormatError: the file can't be read or is malformed, here and in all methods.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        with reading(path):
            self.program = DebugProgram(path)
        self._near: Unit | None = None  # where names are looked up first
        self._decoded: dict[tuple[int, int], CType] = {}
        self._definitions: dict[int, int] = {}

    @property
    def files(self) -> tuple[str, ...]:
        """Return the files that were read."""
        return tuple(dict.fromkeys(home.sections.path for home in self.program.homes))

    @property
    def missing(self) -> str:
        """Return a file that would tell more and isn't there, or is of another build; empty where there is none."""
        with reading(self.path):
            return self.program.missing

    # Functions.

    def function_at(self, address: int) -> Function | None:
        """Return the prototype of the function that is entered at *address* of the file; None where nothing tells.

        From then on names are looked up in its unit first.
        """
        with reading(self.path):
            entry = self.program.function_at(address)
            if entry is None or any(one.number(At.CALLING_CONVENTION) == _NOT_CALLABLE for one in chain_of(entry)):
                return None
            self._near = entry.unit
            return self._function(entry)

    def declaration_at(self, address: int) -> str:
        """Return the prototype of the function that is entered at *address* as C writes it; empty where unknown."""
        from kprobes.symbols.dwarf.declare import declare_function

        with reading(self.path):
            entry = self.program.function_at(address)
            return declare_function(entry, self.program.qualified_name) if entry is not None else ""

    def function(self, name: str) -> Function | None:
        """Return the prototype of the function *name*; of several any."""
        with reading(self.path):
            entry = next(self.program.named(name, _SUBPROGRAMS, self._near), None)
            return self._function(entry) if entry is not None else None

    def variable(self, name: str) -> CType | None:
        """Return the type of the global variable *name*, or None."""
        with reading(self.path):
            for entry in self.program.named(name, _VARIABLES, self._near):
                return self._typed(entry)
        return None

    # The rest of the protocol `Types`.

    def struct(self, name: str) -> Struct | None:
        """Return `struct name` or `union name` (a definition where there is one), or None."""
        tag, _, rest = name.strip().rpartition(" ") if "<" not in name else ("", "", name.strip())
        with reading(self.path):
            entry = self._definition(rest, _TAGS.get(tag, STRUCTS))
            return self._struct(entry) if entry is not None else None

    def member(self, struct: Struct, name: str) -> Member | None:
        """Return the member *name* of *struct*, also one inside an anonymous struct or union, or a base class."""
        with reading(self.path):
            for entry, outer in self._members(struct):
                if entry.name == name:
                    offset, size = member_place(entry)
                    return Member(name, self._typed(entry), outer + offset, size)
        return None

    def member_names(self, struct: Struct) -> Sequence[str]:
        """Return the names that `member` finds."""
        with reading(self.path):
            return [name for entry, _ in self._members(struct) if (name := entry.name)]

    def enumerator(self, name: str) -> int | None:
        """Return the value of the enum constant *name*, or None."""
        with reading(self.path):
            return next((value for value in self._enumerators_called(name)), None)

    def enumerators(self, enum: Enum) -> dict[int, str]:
        """Return the constants of *enum* by value; of several names the first."""
        names: dict[int, str] = {}
        with reading(self.path):
            for name, value in _constants(self.program.at_key(enum.key), signed=enum.signed, size=enum.size):
                names.setdefault(value, name)
        return names

    def typename(self, name: str) -> CType | None:
        """Return the type that C or C++ calls *name* (`size_t`, `struct file *`, `Shop::Item &`), or None."""
        match = _SPELLING.match(_QUALIFIERS.sub(" ", name).strip())
        if match is None or not match["name"]:
            return None
        with reading(self.path):
            found = self._named(" ".join(match["name"].split()))
        stars = sum(match["stars"].count(sign) for sign in "*&")
        if found is None or stars > CHAIN_LIMIT:
            return None
        for _ in range(stars):
            found = Pointer(found)
        return Array(found, int(match["count"].strip("[] \t"))) if match["count"] else found

    # For messages.

    def nearest_types(self, name: str) -> tuple[str, ...]:
        """Return names of types that resemble *name*, spelt as it is (`struct fil` gives `struct file`)."""
        from kprobes.symbols.nearest import nearest_names

        prefix, _, plain = name.rstrip("* ").rpartition(" ")
        with reading(self.path):
            names = nearest_names(plain, self._names_of(_TAGS.get(prefix, _NAMED)))
        return tuple(f"{prefix} {one}".strip() for one in names)

    def nearest_members(self, struct: Struct, name: str) -> tuple[str, ...]:
        """Return names of members of *struct* that resemble *name*."""
        from kprobes.symbols.nearest import nearest_names

        return nearest_names(name, self.member_names(struct))

    # Names to entries.

    def _definition(self, name: str, tags: frozenset[int]) -> Entry | None:
        declared = None
        for entry in self.program.named(name, tags, self._near):
            if not entry.flag(At.DECLARATION):
                return entry
            declared = declared or entry
        return declared

    def _named(self, plain: str) -> CType | None:
        tag, _, rest = plain.partition(" ")
        if tag in _TAGS:
            entry = self._definition(rest, _TAGS[tag])
            return self._plain(entry, 0) if entry is not None else None
        found = builtin_type(plain)
        if found is not None:
            return found
        for entry in self.program.named(plain, _NAMED, self._near):
            return self._ctype(entry, 0)
        entry = self._definition(plain, STRUCTS | _ENUMS)
        if entry is None or entry.unit.home.root(entry.unit).number(At.LANGUAGE) in C_LANGUAGES:
            return None
        return self._plain(entry, 0)

    def _names_of(self, tags: frozenset[int]) -> Iterator[str]:
        count = 0
        for unit in [*([self._near] if self._near is not None else []), *self.program.units()]:
            for offset, shape, _ in unit.home.offsets(unit, unit.home.root(unit).after):
                count += 1
                if shape.tag in tags and At.NAME in shape.whats:
                    yield unit.home.entry(unit, offset).name
                if count > NAMES_LIMIT:
                    return

    def _enumerators_called(self, name: str) -> Iterator[int]:
        plain = name.rpartition("::")[2]
        wanted = plain.encode() + b"\0"
        for unit in self.program.units_with(plain, self._near):
            home = unit.home
            for offset in entries_in_scopes(unit, _ENUMS):
                entry = home.entry(unit, offset)
                if any(home.is_called(unit, one, at, wanted) for _, one, at in home.offsets(unit, entry.after)):
                    enum = self._enum(entry)
                    yield from (v for n, v in _constants(entry, signed=enum.signed, size=enum.size) if n == plain)

    # Entries to types.

    def _members(self, struct: Struct) -> Iterator[tuple[Entry, int]]:
        return each_member(self._complete(struct)) if struct.key else iter(())

    def _complete(self, struct: Struct) -> Entry:
        """Return the entry that defines *struct*; where there is none, the one that declares it."""
        entry = self.program.at_key(struct.key)
        if not entry.flag(At.DECLARATION):
            return entry
        if struct.key not in self._definitions:
            name = self.program.qualified_name(entry)
            found = self._definition(name, frozenset({entry.tag})) if name else None
            self._definitions[struct.key] = self.program.key(found or entry)
        return self.program.at_key(self._definitions[struct.key])

    def _function(self, entry: Entry) -> Function:
        chain = chain_of(entry)
        # code that was inlined elsewhere too, or compiled late, leaves its parameters to the abstract function
        owner = next((one for one in chain if At.ABSTRACT_ORIGIN not in one.values), chain[-1])
        parameters, variadic = self._parameters(owner, 1)
        if entry.unit.home.root(entry.unit).number(At.LANGUAGE) == RUST:
            parameters = _told_apart(parameters)
        returns = next((self._typed(one, 1) for one in chain if At.TYPE in one.values), Void())
        if isinstance(returns, Struct) and self._is_by_reference(returns):
            # the caller says where to, and gets the address back
            returns = Pointer(returns)
            parameters.insert(0, Parameter("", returns))
        name = next((self.program.qualified_name(one) for one in chain[::-1] if At.NAME in one.values), "")
        return Function(name, tuple(parameters), returns, variadic)

    def _parameters(self, owner: Entry, depth: int) -> tuple[list[Parameter], bool]:
        found: list[Parameter] = []
        for child in owner.children():
            if child.tag == Tag.UNSPECIFIED_PARAMETERS:
                return found, True
            if child.tag != Tag.PARAMETER:
                continue
            if len(found) >= PARAMETER_LIMIT:
                raise FormatError(f"{self.path}: a function has more than {PARAMETER_LIMIT} parameters")
            typed = next((one for one in chain_of(child) if At.TYPE in one.values), child)
            ctype = self._typed(typed, depth)
            if isinstance(ctype, Struct) and self._is_by_reference(ctype):
                ctype = Pointer(ctype)
            name = name_of(child)
            is_usable = name.isidentifier() and all(one.name != name for one in found)  # packs have several of one name
            found.append(Parameter(name if is_usable else "", _passed(ctype)))
        return found, False

    def _is_by_reference(self, struct: Struct) -> bool:
        """Return whether a value of *struct* is passed by its address, as classes with a destructor are."""
        return bool(struct.key) and is_by_reference(self._complete(struct))

    def _typed(self, entry: Entry, depth: int = 0) -> CType:
        """Return the type that *entry* (a member, a parameter, a variable) says it has."""
        for one in chain_of(entry):
            if At.TYPE in one.values:
                target = one.entry(At.TYPE)
                return self._ctype(target, depth) if target is not None else _UNKNOWN_TYPE
        return Void()

    def _ctype(self, entry: Entry, depth: int) -> CType:
        """Return the type *entry*. *depth* counts prototypes within prototypes: the third has no parameters."""
        key = self.program.key(entry), depth
        if key not in self._decoded:
            wrappers, inner = self._unwrap(entry)
            ctype: CType = self._plain(inner, depth) if inner is not None else Void()
            for kind, value in reversed(wrappers):
                ctype = Pointer(ctype, const=bool(value)) if kind == Tag.POINTER else Array(ctype, value)
            self._decoded[key] = ctype
        return self._decoded[key]

    def _unwrap(self, entry: Entry) -> tuple[list[tuple[int, int]], Entry | None]:
        """Return the pointers (with whether what they point at is const) and arrays (with their counts) around a type,
        outermost first, and what they hold (None: void)."""
        wrappers: list[tuple[int, int]] = []
        current: Entry | None = entry
        for _ in range(CHAIN_LIMIT):
            if current is None:
                return wrappers, None
            if current.tag in _POINTERS:
                wrappers.append((Tag.POINTER, 0))
            elif current.tag == Tag.ARRAY and not current.flag(At.GNU_VECTOR):
                wrappers += [(Tag.ARRAY, count) for count in _dimensions(current)]
            elif current.tag not in _TRANSPARENT:
                return wrappers, current
            elif current.tag == Tag.CONST and wrappers and wrappers[-1][0] == Tag.POINTER:
                wrappers[-1] = (Tag.POINTER, 1)
            following = current.entry(At.TYPE)
            if following is None and At.TYPE in current.values:
                raise FormatError(f"{self.path}: the debug information refers to a file that isn't there")
            current = following
        raise FormatError(f"{self.path}: a type of the debug information is nested more than {CHAIN_LIMIT} deep")

    def _plain(self, entry: Entry, depth: int) -> CType:
        size = entry.number(At.BYTE_SIZE) or 0
        if entry.tag == Tag.BASE:
            return _base(entry.name, size, entry.number(At.ENCODING) or 0)
        if entry.tag == Tag.ENUMERATION:
            return self._enum(entry)
        if entry.tag == Tag.SUBROUTINE_TYPE:
            if depth >= 2:
                return Function("", (), Void())
            parameters, variadic = self._parameters(entry, depth + 1)
            return Function("", tuple(parameters), self._typed(entry, depth + 1), variadic)
        if entry.tag == Tag.ARRAY:  # a vector
            return Float("vector", self._vector_size(entry))
        if entry.tag == Tag.UNSPECIFIED_TYPE:
            return Void()
        if entry.tag == Tag.POINTER_TO_MEMBER:
            target = entry.entry(At.TYPE)
            is_method = target is not None and target.tag == Tag.SUBROUTINE_TYPE
            return Int("pointer to member", 16 if is_method else 8, False)
        return self._struct(entry)

    def _struct(self, entry: Entry) -> Struct:
        size = 0 if entry.flag(At.DECLARATION) else entry.number(At.BYTE_SIZE) or 0
        return Struct(self.program.qualified_name(entry), size, entry.tag == Tag.UNION, self.program.key(entry))

    def _enum(self, entry: Entry) -> Enum:
        size = entry.number(At.BYTE_SIZE) or 4
        if size not in _SIZES:
            raise FormatError(f"{self.path}: an enumeration of {size} bytes")
        under = self._typed(entry) if At.TYPE in entry.values else None
        if isinstance(under, Int):
            signed = under.signed
        else:
            signed = any(value < 0 for _, value in _constants(entry, signed=True, size=size, plain=True))
        return Enum(self.program.qualified_name(entry), size, signed, self.program.key(entry))

    def _vector_size(self, entry: Entry) -> int:
        from kprobes.model.ctype import sizeof

        count = 1
        for one in _dimensions(entry):
            count *= one
        return entry.number(At.BYTE_SIZE) or count * sizeof(self._typed(entry))


def _told_apart(parameters: list[Parameter]) -> list[Parameter]:
    """Return the parameters of a Rust function, those behind a value of several fields without a type.

    How many registers such a value takes is the compiler's secret.
    """
    count = next((n for n, one in enumerate(parameters, 1) if isinstance(one.type, Struct)), len(parameters))
    return [*parameters[:count], *(Parameter(one.name, _UNKNOWN_TYPE) for one in parameters[count:])]


def _passed(ctype: CType) -> CType:
    """Return *ctype* as the ABI counts it: what goes in a vector register counts as such, however wide it is.

    A `long double` is as wide and goes to the stack.
    """
    if isinstance(ctype, Float) and ctype.size > 8 and ctype.name != "long double":
        return Float(ctype.name, 8)
    return ctype


def _base(name: str, size: int, encoding: int) -> CType:
    if encoding in _FLOATS:
        return Float(name, size)
    if size not in _SIZES:
        return Struct(name, size, False, 0) if size else Void()
    plain = canonical_int_name(name)
    kind = "bool" if encoding == _BOOLEAN else "char" if plain == "char" else "int"
    return Int(plain, size, encoding in _SIGNED, kind)


def _dimensions(entry: Entry) -> list[int]:
    """Return the counts of the array *entry*, outermost first; 0 where it has no end."""
    counts = []
    for child in entry.children():
        if child.tag != Tag.SUBRANGE:
            continue
        count, bound = child.number(At.COUNT), child.number(At.UPPER_BOUND)
        if count is None:
            count = 0 if bound is None or bound >= 1 << 31 else bound + 1
        counts.append(count if 0 <= count < 1 << 31 else 0)
        if len(counts) > CHAIN_LIMIT:
            break
    return counts or [0]


def _constants(entry: Entry, *, signed: bool, size: int, plain: bool = False) -> Iterator[tuple[str, int]]:
    """Return (name, value) of each constant of the enumeration *entry*; *plain*: values as they are written."""
    count = 0
    for child in entry.children():
        value = child.values.get(At.CONST_VALUE)
        if child.tag != Tag.ENUMERATOR or value is None or not isinstance(value[1], int):
            continue
        count += 1
        if count > ENUMERATOR_LIMIT:
            raise FormatError("an enumeration of the debug information has too many constants")
        yield child.name, value[1] if plain else _in_width(value[0], value[1], signed=signed, size=size)


def _in_width(form: int, value: int, *, signed: bool, size: int) -> int:
    """Return a constant as the enumeration's type has it: compilers write it in as few bytes as it takes."""
    bits = {Form.DATA1: 8, Form.DATA2: 16, Form.DATA4: 32, Form.DATA8: 64}.get(form, 8 * size)  # type: ignore[call-overload]
    value &= (1 << (bits if signed else 8 * size)) - 1
    return value - (1 << bits) if signed and value >> (bits - 1) & 1 else value
