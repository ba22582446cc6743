"""What a handler is compiled for: the kind of probe, the prototype, the types."""

from __future__ import annotations

from kprobes.frozen import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from kprobes.model.ctype import CType, Function, Types
    from kprobes.model.setting import SettingValue
else:
    Protocol = object  # `typing` is 5 ms of every command that compiles

USER_KINDS = frozenset({"uprobe", "uretprobe"})
RETURN_KINDS = frozenset({"kretprobe", "uretprobe"})


class RecordField(Protocol):
    """One field of a tracepoint's record, as `symbols` finds it in the format file.

    *type* is its C type, which may be narrower than its *size* in bytes at *offset*. *location* is empty for a field
    that holds its value, `data` for one that says where in the record its array lies, `relative` where that counts from
    the end of the field.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - the class says what each one is
    @property
    def type(self) -> CType: ...  # noqa: D102
    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def size(self) -> int: ...  # noqa: D102
    @property
    def location(self) -> str: ...  # noqa: D102


class VariablePlace(Protocol):
    """Where a global variable lies: at *address*, or with *relative* so far behind the probed instruction."""

    @property
    def address(self) -> int: ...  # noqa: D102
    @property
    def relative(self) -> bool: ...  # noqa: D102


class Variables(Protocol):
    """Where addresses of global variables come from."""

    def find(self, name: str) -> VariablePlace:
        """Return where the symbol *name* lies.

        Raises:
            KprobesError: there is none, or it can't be told.
        """


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a handler is compiled for.

    *prototype* is that of the probed function, None where nobody knows it. *at_entry*: the site is a function's entry,
    where arguments can be read. *record* are the fields of a tracepoint's record. *shards* is the power of two of
    per-CPU shares of maps without a key; events are numbered from *first_event_id*. *unsafe* allows to change the
    probed program. *steps*: what stands behind a `yield` can run behind the probed instruction. *on_fault*: the handler
    runs when the probed instruction has faulted. *untyped* says why there is no prototype, where that is known.
    *variables* knows where global variables lie. *arch* is the architecture of the probed code.
    """

    kind: str
    types: Types
    prototype: Function | None = None
    at_entry: bool = True
    record: tuple[RecordField, ...] = ()
    shards: int = 1
    first_event_id: int = 0
    unsafe: bool = False
    steps: bool = False
    on_fault: bool = False
    settings: tuple[tuple[str, SettingValue], ...] = ()
    untyped: str = ""
    variables: Variables | None = None
    arch: str = "x86_64"

    @property
    def returns(self) -> bool:
        """Tell whether the handler runs when the probed function returns."""
        return self.kind in RETURN_KINDS

    @property
    def user(self) -> bool:
        """Tell whether the probed code runs in user space."""
        return self.kind in USER_KINDS
