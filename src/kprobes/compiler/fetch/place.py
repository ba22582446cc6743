"""Where a definition's arguments are fetched: what its event can ask of the target and of the hit."""

from __future__ import annotations

from kprobes.frozen import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kprobes.model.definition import Definition


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What lowering must know besides the *definition*, whose *text* is shown in messages.

    *address_of* finds kernel symbols, 0 where there is none. *returns_tell*: at a return the hit knows the probed
    function and where it returns to; else that is kept from the entry. *native*: it runs inside of the process, at a
    return before the instruction that returns. *arch* is the architecture of the probed code.
    """

    definition: Definition
    text: str
    address_of: Callable[[str], int]
    first_event_id: int = 0
    strings: int = 0
    returns_tell: bool = True
    native: bool = False
    arch: str = "x86_64"

    @property
    def user(self) -> bool:
        """Return whether memory is that of a process."""
        return self.definition.is_user

    @property
    def returns(self) -> bool:
        """Return whether it is a return probe."""
        return self.definition.is_return
