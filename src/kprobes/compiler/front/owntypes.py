"""The types of the probed program, and besides them those that a handler's own Python names: words, structs, enums."""

from __future__ import annotations

from enum import IntFlag

from kprobes.model.ctype import Array, Enum, Member, Pointer, Struct
from kprobes.model.cwords import ArrayOf, Bits, CWord, PointerTo
from kprobes.model.structs import Shape, enum_word, is_enum, names_of, shape_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import enum
    from collections.abc import Mapping, Sequence

    from kprobes.model.ctype import CType, Function, Types
    from kprobes.model.layout import Field

    Names = tuple[tuple[int, str], ...]


class OwnTypes:
    """The `Types` of one compilation. Keys of the user's own structs and enums are below 0."""

    def __init__(self, target: Types) -> None:
        self._target = target
        self._own: list[Shape | type[enum.Enum] | Names] = []

    def ctype(self, kind: object) -> CType | None:
        """Return the C type that *kind*, an object of `cwords` or `structs` or a class, stands for; None if none.

        Raises:
            LookupError: it names one that the probed program doesn't have.
        """
        if isinstance(kind, CWord):
            return kind.type
        if isinstance(kind, Bits):
            return kind.word.type
        if isinstance(kind, ArrayOf):
            element = self.ctype(kind.element)
            return None if element is None else Array(element, kind.count)
        if isinstance(kind, PointerTo):
            target = self.ctype(kind.target)
            return None if target is None else Pointer(target)
        if isinstance(kind, str):
            found = self._target.typename(kind)
            if found is None:
                raise LookupError(kind)
            return found
        shape = shape_of(kind)
        if shape is not None:
            return Struct(shape.name, shape.size, shape.is_union, self._key(shape))
        if is_enum(kind):
            word = enum_word(kind)
            return Enum(kind.__name__, word.size, word.signed, self._key(kind), issubclass(kind, IntFlag))
        return None

    def of_names(self, field: Field) -> Enum:
        """Return the enumeration whose values have the names that *field* of a map has for them."""
        return Enum("", field.size, field.kind == "int", self._key(field.names), field.flags)

    def _key(self, thing: Shape | type[enum.Enum] | Names) -> int:
        for number, known in enumerate(self._own):
            if known is thing:
                return -1 - number
        self._own.append(thing)
        return -len(self._own)

    def shape(self, struct: Struct) -> Shape | None:
        """Return the layout of one of the user's own structs, None for those of the probed program."""
        found = self._own[-1 - struct.key] if struct.key < 0 else None
        return found if isinstance(found, Shape) else None

    # The protocol `Types`.

    def function(self, name: str) -> Function | None:
        """Return the prototype of the function *name*, or None."""
        return self._target.function(name)

    def struct(self, name: str) -> Struct | None:
        """Return `struct name` or `union name` of the probed program, or None."""
        return self._target.struct(name)

    def member(self, struct: Struct, name: str) -> Member | None:
        """Return the member *name*.

        Raises:
            LookupError: it is of a type that the probed program doesn't have.
        """
        shape = self.shape(struct)
        if shape is None:
            return self._target.member(struct, name)
        for one in shape.members:
            if one.name == name:
                ctype = self.ctype(one.type)
                assert ctype is not None, name
                return Member(name, ctype, one.bit_offset, one.bit_size)
        return None

    def member_names(self, struct: Struct) -> Sequence[str]:
        """Return the names `member` finds."""
        shape = self.shape(struct)
        return self._target.member_names(struct) if shape is None else [one.name for one in shape.members]

    def enumerator(self, name: str) -> int | None:
        """Return the value of the enum constant *name* of the probed program, or None."""
        return self._target.enumerator(name)

    def enumerators(self, enum: Enum) -> Mapping[int, str]:
        """Return the constants of *enum* by value."""
        if enum.key >= 0:
            return self._target.enumerators(enum)
        own = self._own[-1 - enum.key]
        assert not isinstance(own, Shape)
        return dict(own if isinstance(own, tuple) else names_of(own)[0])

    def variable(self, name: str) -> CType | None:
        """Return the type of the global variable *name* of the probed program, or None."""
        return self._target.variable(name)

    def typename(self, name: str) -> CType | None:
        """Return the type of the probed program that a cast names, or None."""
        return self._target.typename(name)
