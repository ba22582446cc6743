"""C types out of BTF: vmlinux and the modules together as one `Types`.

Input is not trusted: chains of types are followed by loops with a bound, never by recursion.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING

from kprobes.errors import FormatError, TypeNotFoundError
from kprobes.model.cnames import builtin_type, canonical_int_name
from kprobes.model.ctype import Array, Enum, Float, Function, Int, Member, Parameter, Pointer, Struct, Void
from kprobes.symbols.btf import Btf, Kind, Record, load_btf
from kprobes.symbols.variables import KNOWN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kprobes.model.ctype import CType
    from kprobes.model.facts import Facts

# Bounds on what one type may be made of; kernels stay far below.
CHAIN_LIMIT = 64
PARAMETER_LIMIT = 128
NESTED_LIMIT = 4096

_FUNCTIONS = frozenset({Kind.FUNC})
_VARIABLES = frozenset({Kind.VAR})
_INTS = frozenset({Kind.INT})
_LONGS = frozenset({"long", "unsigned long"})
_STRUCTS = frozenset({Kind.STRUCT, Kind.UNION})
_ENUMS = frozenset({Kind.ENUM, Kind.ENUM64})
_NAMED = frozenset({Kind.TYPEDEF, Kind.INT, Kind.FLOAT})
_TRANSPARENT = frozenset({Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG})
_USER, _CONST = 1, 2
_SPELLING = re.compile(r"\s*((?:\w+\s+)*?\w+)\s*((?:\*\s*)*)((?:\[\s*\d+\s*\]\s*)?)\Z")
_QUALIFIERS = frozenset({"const", "volatile", "__user", "restrict"})


class KernelTypes:
    """The types of a kernel: *base* (vmlinux) and, opened when first asked for, those of *modules*.

    Keys of structs and enums are ids of records, those of a module with the module's number in the upper half. A
    `Function.key` is the plain id that the kernel knows the function by.
    """

    def __init__(
        self, base: Btf, modules: Sequence[str] = (), open_module: Callable[[str], Btf | None] | None = None
    ) -> None:
        self._base = base
        self._names = ("", *modules)
        self._open_module = open_module
        self._opened: dict[int, Btf | None] = {0: base}
        self._decoded: dict[int, CType] = {}

    @classmethod
    def load(cls, facts: Facts) -> KernelTypes:
        """Open the types of the kernel that *facts* tell of.

        Raises:
            TypeNotFoundError: the kernel has no BTF.
            FormatError: its BTF is malformed.
        """
        path = facts.btf()
        if path is None:
            raise TypeNotFoundError(
                "this kernel has no type information (BTF)",
                hint="it was built without CONFIG_DEBUG_INFO_BTF; name registers instead: regs.sp, arg(1)",
            )
        base = load_btf(path, key=facts.features.key)

        def open_module(name: str) -> Btf | None:
            found = facts.btf(name)
            return load_btf(found, base=base) if found else None

        return cls(base, facts.modules(), open_module)

    # The protocol `Types`.

    def function(self, name: str, module: str | None = None) -> Function | None:
        """Return the prototype of the function *name*, in *module* only where one is given (empty: vmlinux)."""
        if ":" in name:
            module, _, name = name.partition(":")
        for number, btf in self._blobs(module):
            for found in btf.functions(name):
                return self._function(number, btf.record(found))
        return None

    def function_id(self, name: str, module: str | None = None) -> int:
        """Return the BTF id of the function *name*, 0 where there is none."""
        found = self.function(name, module)
        return found.key if found else 0

    def struct(self, name: str) -> Struct | None:
        """Return `struct name` or `union name`, the definition where there is one, or None."""
        plain = name.removeprefix("struct ").removeprefix("union ").strip()
        kinds = frozenset({Kind.UNION}) if name.startswith("union ") else _STRUCTS
        declared = None
        for number, btf in self._blobs(None):
            for record in btf.named(plain, kinds):
                return self._struct(number, record)
            declared = declared or next(((number, r) for r in btf.named(plain, frozenset({Kind.FWD}))), None)
        return self._struct(*declared) if declared else None

    def member(self, struct: Struct, name: str) -> Member | None:
        """Return the member *name* of *struct*, also one inside an anonymous struct or union of it."""
        for number, bit_offset, bit_size, type_id, found in self._members(struct):
            if found == name:
                return self._member(number, name, type_id, (bit_offset, bit_size))
        return None

    def member_names(self, struct: Struct) -> Sequence[str]:
        """Return the names that `member` finds."""
        return [name for *_, name in self._members(struct) if name]

    def enumerator(self, name: str) -> int | None:
        """Return the value of the enum constant *name*, or None."""
        for _, btf in self._blobs(None):
            for record, place in btf.enumerations_with(name):
                return _enum_value(record, place)
        return None

    def variable(self, name: str) -> CType | None:
        """Return the type of the global variable *name* (BTF tells that of per-CPU ones), or None."""
        for number, btf in self._blobs(None):
            for record in btf.named(name, _VARIABLES):
                return self._ctype(number, record.value)
        return self.typename(KNOWN[name]) if name in KNOWN else None

    def enumerators(self, enum: Enum) -> dict[int, str]:
        """Return the constants of *enum* by value; of several names the first."""
        number, record = self._record(enum.key)
        btf = self._blob(number)
        names: dict[int, str] = {}
        step = 2 if record.kind == Kind.ENUM else 3
        for place in range(record.vlen):
            names.setdefault(_enum_value(record, place), btf.string(record.words[place * step]))
        return names

    def typename(self, name: str) -> CType | None:
        """Return the type that C calls *name* (`u32`, `struct file *`, `pid_t`, `char [16]`), or None."""
        match = _SPELLING.match(name)
        if match is None:
            return None
        words = match[1].split()
        plain = " ".join(w for w in words if w not in _QUALIFIERS)
        found = builtin_type(plain) or self._named_type(plain)
        if isinstance(found, Int) and found.name in _LONGS and found.size != self._word_size:
            found = Int(found.name, self._word_size, found.signed)
        stars = match[2].count("*")
        for depth in range(stars if found is not None and stars < CHAIN_LIMIT else 0):
            found = Pointer(found, user="__user" in words and depth == 0, size=self._word_size)  # type: ignore[arg-type]
        count = match[3].strip("[] \t")
        return Array(found, int(count)) if found is not None and count else found

    # For messages.

    def nearest_types(self, name: str) -> tuple[str, ...]:
        """Return names of types that resemble *name*, spelt as it is (`struct fil` gives `struct file`)."""
        from kprobes.symbols.nearest import nearest_names

        prefix, _, plain = name.rstrip("* ").rpartition(" ")
        kinds = {"struct": frozenset({Kind.STRUCT}), "union": frozenset({Kind.UNION}), "enum": _ENUMS}
        names = nearest_names(plain, self._base.names(kinds.get(prefix, _NAMED)))
        return tuple(f"{prefix} {n}".strip() for n in names)

    def nearest_functions(self, name: str) -> tuple[str, ...]:
        """Return names of functions with a prototype that resemble *name*."""
        from kprobes.symbols.nearest import nearest_names

        return nearest_names(name, self._base.names(_FUNCTIONS))

    def nearest_members(self, struct: Struct, name: str) -> tuple[str, ...]:
        """Return names of members of *struct* that resemble *name*."""
        from kprobes.symbols.nearest import nearest_names

        return nearest_names(name, self.member_names(struct))

    def declaration(self, name: str, module: str | None = None) -> str | None:
        """Return the prototype of *name* as C writes it, with the typedefs that the source used; or None."""
        from kprobes.symbols.declare import declare_function

        for _, btf in self._blobs(module):
            for found in btf.functions(name):
                return declare_function(btf, btf.record(found))
        return None

    # Records to types.

    def _blobs(self, module: str | None) -> Iterator[tuple[int, Btf]]:
        """Return vmlinux and the modules, or *module* alone, each with its number."""
        for number, name in enumerate(self._names):
            if module is not None and name != module.replace("-", "_").removeprefix("vmlinux"):
                continue
            if number not in self._opened:
                self._opened[number] = self._open_module(name) if self._open_module else None
            btf = self._opened[number]
            if btf is not None:
                yield number, btf

    def _blob(self, number: int) -> Btf:
        btf = self._opened.get(number)
        if btf is None:
            raise FormatError(f"a type belongs to module number {number}, which isn't open")
        return btf

    def _key(self, number: int, type_id: int) -> int:
        btf = self._blob(number)
        return type_id if type_id < btf.first else number << 32 | type_id

    def _record(self, key: int) -> tuple[int, Record]:
        number = key >> 32
        return number, self._blob(number).record(key & 0xFFFFFFFF)

    def _named_type(self, plain: str) -> CType | None:
        tag, _, rest = plain.partition(" ")
        if tag in ("struct", "union"):
            return self.struct(plain)
        kinds = _ENUMS if tag == "enum" else _NAMED
        for number, btf in self._blobs(None):
            for record in btf.named(rest if tag == "enum" else plain, kinds):
                return self._ctype(number, record.id)
        return None

    def _struct(self, number: int, record: Record) -> Struct:
        declared = record.kind == Kind.FWD
        is_union = record.flag if declared else record.kind == Kind.UNION
        name = self._blob(number).string(record.name_offset)
        return Struct(name, 0 if declared else record.value, is_union, self._key(number, record.id))

    def _function(self, number: int, record: Record) -> Function:
        btf = self._blob(number)
        proto = self._ctype(number, record.value)
        if not isinstance(proto, Function):
            raise FormatError(f"BTF function {btf.string(record.name_offset)} has no prototype")
        name = btf.string(record.name_offset)
        return Function(name, proto.parameters, proto.returns, proto.variadic, record.id, self._names[number])

    def _ctype(self, number: int, type_id: int, depth: int = 0) -> CType:
        """Return the type *type_id*. *depth* counts prototypes within prototypes: the third has no parameters."""
        key = self._key(number, type_id) << 2 | depth
        if key not in self._decoded:
            wrappers, record = self._unwrap(number, type_id)
            ctype: CType = self._plain(number, record, depth) if record else Void()
            for kind, value in reversed(wrappers):
                ctype = self._pointer(ctype, value) if kind == Kind.PTR else Array(ctype, value)
            self._decoded[key] = ctype
        return self._decoded[key]

    def _pointer(self, target: CType, flags: int) -> Pointer:
        return Pointer(target, user=bool(flags & _USER), const=bool(flags & _CONST), size=self._word_size)

    @cached_property
    def _word_size(self) -> int:
        """The size of a pointer, which BTF doesn't tell: Linux gives a `long` the same."""
        for _, btf in self._blobs(""):
            for record in btf.named("long unsigned int", _INTS):
                return record.value
        return 8

    def _unwrap(self, number: int, type_id: int) -> tuple[list[tuple[int, int]], Record | None]:
        """Return the pointers and arrays around a type, outermost first, and what they hold (None: void).

        A pointer comes with its flags (_USER, _CONST), an array with its count.
        """
        btf = self._blob(number)
        wrappers: list[tuple[int, int]] = []
        for _ in range(CHAIN_LIMIT):
            if type_id == 0:
                return wrappers, None
            record = btf.record(type_id)
            if record.kind == Kind.PTR:
                wrappers.append((Kind.PTR, 0))
            elif record.kind == Kind.ARRAY:
                wrappers.append((Kind.ARRAY, record.words[2]))
            elif record.kind not in _TRANSPARENT:
                return wrappers, record
            flag = _CONST if record.kind == Kind.CONST else 0
            if record.kind == Kind.TYPE_TAG and btf.string(record.name_offset) == "user":
                flag = _USER
            if flag and wrappers and wrappers[-1][0] == Kind.PTR:
                wrappers[-1] = (Kind.PTR, wrappers[-1][1] | flag)
            type_id = record.words[0] if record.kind == Kind.ARRAY else record.value
        raise FormatError(f"a BTF type is nested more than {CHAIN_LIMIT} deep")

    def _plain(self, number: int, record: Record, depth: int) -> CType:
        name = self._blob(number).string(record.name_offset)
        if record.kind == Kind.INT:
            return _integer(name, record)
        if record.kind == Kind.FLOAT:
            return Float(name, record.value)
        if record.kind in _ENUMS:
            return Enum(name, record.value, record.flag, self._key(number, record.id))
        if record.kind in _STRUCTS or record.kind == Kind.FWD:
            return self._struct(number, record)
        if record.kind == Kind.FUNC_PROTO:
            return self._prototype(number, record, depth)
        raise FormatError(f"BTF names a record of kind {record.kind} where a type belongs")

    def _prototype(self, number: int, record: Record, depth: int) -> Function:
        if record.vlen > PARAMETER_LIMIT:
            raise FormatError(f"a BTF prototype has {record.vlen} parameters")
        if depth == 2:
            return Function("", (), Void())
        pairs = [(record.words[2 * i], record.words[2 * i + 1]) for i in range(record.vlen)]
        variadic = bool(pairs) and pairs[-1] == (0, 0)
        string = self._blob(number).string
        parameters = (
            Parameter(string(n), self._ctype(number, t, depth + 1)) for n, t in pairs[: -1 if variadic else None]
        )
        return Function("", tuple(parameters), self._ctype(number, record.value, depth + 1), variadic)

    # Members.

    def _members(self, struct: Struct) -> Iterator[tuple[int, int, int, int, str]]:
        """Return (blob, bit offset, bit size, type id, name) of each member, those of anonymous ones in their place."""
        number, record = self._definition(struct)
        btf = self._blob(number)
        pending = [(0, record)]
        for _ in range(NESTED_LIMIT):
            if not pending:
                return
            outer, record = pending.pop()
            inner = []
            words, flag = record.words, record.flag
            for at in range(0, len(words), 3):
                offset, size = (words[at + 2] & 0xFFFFFF, words[at + 2] >> 24) if flag else (words[at + 2], 0)
                name = btf.string(words[at])
                yield number, outer + offset, size, words[at + 1], name
                if not name:
                    inner += [(outer + offset, r) for r in self._anonymous(number, words[at + 1])]
            pending += reversed(inner)
        raise FormatError(f"struct {struct.name} holds more than {NESTED_LIMIT} anonymous members")

    def _anonymous(self, number: int, type_id: int) -> Iterator[Record]:
        wrappers, record = self._unwrap(number, type_id)
        if not wrappers and record is not None and record.kind in _STRUCTS:
            yield record

    def _definition(self, struct: Struct) -> tuple[int, Record]:
        number, record = self._record(struct.key)
        if record.kind == Kind.FWD:
            found = self.struct(f"{'union' if struct.is_union else 'struct'} {struct.name}")
            number, record = self._record(found.key) if found else (number, record)
        if record.kind not in _STRUCTS:
            return number, Record(0, Kind.STRUCT, 0, 0, False, 0, record.words[:0])
        return number, record

    def _member(self, number: int, name: str, type_id: int, bits: tuple[int, int]) -> Member:
        ctype = self._ctype(number, type_id)
        bit_offset, bit_size = bits
        if bit_size:
            return Member(name, ctype, bit_offset, bit_size)
        # Before kind_flag (Linux 4.20) a bit-field was a member of an integer type of its own.
        wrappers, record = self._unwrap(number, type_id)
        if not wrappers and record is not None and record.kind == Kind.INT:
            width, shift = record.words[0] & 0xFF, record.words[0] >> 16 & 0xFF
            if width != 8 * record.value:
                return Member(name, ctype, bit_offset + shift, width)
        return Member(name, ctype, bit_offset)


def _integer(name: str, record: Record) -> Int:
    encoding = record.words[0] >> 24 & 0xF
    if record.value not in (1, 2, 4, 8, 16):
        raise FormatError(f"BTF integer {name!r} has {record.value} bytes")
    plain = canonical_int_name(name)
    kind = "bool" if encoding & 4 else "char" if plain == "char" else "int"
    return Int(plain, record.value, bool(encoding & 1), kind)


def _enum_value(record: Record, place: int) -> int:
    if record.kind == Kind.ENUM:
        value = record.words[2 * place + 1]
        bits = 32
    else:
        value = record.words[3 * place + 1] | record.words[3 * place + 2] << 32
        bits = 64
    return value - (1 << bits) if record.flag and value >> (bits - 1) else value
