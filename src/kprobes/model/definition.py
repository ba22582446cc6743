"""What a definition says, as frozen data: definitions, places, arguments and the terms they fetch.

This is the public tree: compilers lower it, `definition.text` formats it as the kernel lists it.
"""

from __future__ import annotations

from kprobes.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Register:
    """`%di`: a register of the probed context, by the kernel's name."""

    name: str


@dataclass(frozen=True, slots=True)
class Stack:
    """`$stack`: the stack pointer."""


@dataclass(frozen=True, slots=True)
class StackWord:
    """`$stackN`: the word *index* of the stack."""

    index: int


@dataclass(frozen=True, slots=True)
class ReturnValue:
    """`$retval`: what the function returned."""


@dataclass(frozen=True, slots=True)
class FunctionArgument:
    """`$argN`: argument *index* of the function, from 0; on a return probe its value at the entry."""

    index: int


@dataclass(frozen=True, slots=True)
class Parameter:
    """`count`: a parameter by the *name* in the prototype; *index* counts from 0, -1 where that isn't known."""

    name: str
    index: int = -1


@dataclass(frozen=True, slots=True)
class AllParameters:
    """`$arg*` where the prototype isn't known; where it is, each parameter is an argument of its own."""


@dataclass(frozen=True, slots=True)
class Field:
    """`file->f_pos`: the member *path* (`f_path.dentry` for `.`) of the structure that *base* points at.

    *bit_offset* counts from the structure's start, -1 where the types aren't known; *bit_size* is 0 unless a bit-field.
    """

    base: Term
    path: str
    bit_offset: int = -1
    bit_size: int = 0


@dataclass(frozen=True, slots=True)
class Comm:
    """`$comm`: the name of the current task."""


@dataclass(frozen=True, slots=True)
class Immediate:
    """`\\123`: a number, 64 bits unsigned."""

    value: int


@dataclass(frozen=True, slots=True)
class Text:
    """`\\"text"`: a string."""

    value: str


@dataclass(frozen=True, slots=True)
class SymbolAddress:
    """The address of a kernel symbol, *offset* bytes on; `@jiffies` is a `Memory` of it."""

    name: str
    offset: int = 0


@dataclass(frozen=True, slots=True)
class FileAddress:
    """The address at which *offset* of the probed file is mapped; `@+0x10` is a `Memory` of it."""

    offset: int


@dataclass(frozen=True, slots=True)
class Memory:
    """`+8(%si)`, `-u8(%si)`, `@ADDRESS`: the memory at *base* + *offset*, of user space where *user* (`u`)."""

    base: Term
    offset: int = 0
    user: bool = False


Term = (
    Register
    | Stack
    | StackWord
    | ReturnValue
    | FunctionArgument
    | Parameter
    | AllParameters
    | Field
    | Comm
    | Immediate
    | Text
    | SymbolAddress
    | FileAddress
    | Memory
)


@dataclass(frozen=True, slots=True)
class FetchType:
    """A type of the kernel's table: *size* in bytes in the record (4 for strings: offset and length)."""

    name: str
    size: int
    signed: bool = False
    string: bool = False


@dataclass(frozen=True, slots=True)
class BitField:
    """`bWIDTH@OFFSET/CONTAINER`, in bits; the container is the argument's type."""

    width: int
    offset: int


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument: *name*, the *body* as written behind `=`, and what it means.

    *count* is the length of an array, 0 where it is none.
    """

    name: str
    body: str
    term: Term
    type: FetchType
    count: int = 0
    bits: BitField | None = None

    @property
    def text(self) -> str:
        """Return the argument as the kernel lists it."""
        if isinstance(self.term, AllParameters):
            return self.body
        return f"{self.name}={self.body}"


@dataclass(frozen=True, slots=True)
class KernelPlace:
    """`vfs_read+4`: *symbol* is as written, also `module:symbol`; *offset* is in bytes."""

    symbol: str
    offset: int = 0

    @property
    def text(self) -> str:
        """Return the place as the kernel lists it."""
        return f"{self.symbol}+{self.offset & 0xFFFFFFFF}" if self.offset else self.symbol


@dataclass(frozen=True, slots=True)
class AddressPlace:
    """An address in the kernel, listed in *digits*. The kernel lists it hashed, unless it runs with
    `no_hash_pointers`."""

    address: int
    digits: int = 16

    @property
    def text(self) -> str:
        """Return the place as the kernel lists it, with the true address."""
        return f"0x{self.address:0{self.digits}x}"


@dataclass(frozen=True, slots=True)
class FilePlace:
    """`/bin/cat:0x1234`: an offset in a file, listed in *digits*; *reference_counter* is the offset of a counter, 0
    where there is none."""

    path: str
    offset: int
    reference_counter: int = 0
    digits: int = 16

    @property
    def text(self) -> str:
        """Return the place as the kernel lists it."""
        counter = f"(0x{self.reference_counter:x})" if self.reference_counter else ""
        return f"{self.path}:0x{self.offset:0{self.digits}x}{counter}"


@dataclass(frozen=True, slots=True)
class Definition:
    """One event's probe: *is_return* tells `r` from `p`; *maxactive* is 0 where it is the kernel's choice."""

    is_return: bool
    group: str
    event: str
    place: KernelPlace | AddressPlace | FilePlace
    arguments: tuple[Argument, ...] = ()
    maxactive: int = 0

    @property
    def text(self) -> str:
        """Return the definition as the kernel lists it."""
        letter = f"r{self.maxactive or ''}" if self.is_return else "p"
        words = [f"{letter}:{self.group}/{self.event}", self.place.text]
        words += [one.text for one in self.arguments]
        return " ".join(words)

    @property
    def is_user(self) -> bool:
        """Return whether it is a uprobe."""
        return isinstance(self.place, FilePlace)


@dataclass(frozen=True, slots=True)
class Deletion:
    """`-:group/event place arguments`: *group* is None for any, *event* empty for all of the group; *words* are the
    place and the arguments that one of several probes of the event must have."""

    group: str | None
    event: str
    words: tuple[str, ...] = ()
