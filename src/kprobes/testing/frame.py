"""One hit as a test describes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kprobes.compiler.front.text import did_you_mean
from kprobes.errors import UsageError
from kprobes.model.builtins import BUILTINS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.model.ctype import Function, Types

# What a hit brings along if nothing else is said.
DEFAULTS: dict[str, Any] = {
    **{row.name: 0 for row in BUILTINS.values() if row.world},
    "now": 1_000_000_000,
    "pid": 1000,
    "tid": 1000,
    "ns_pid": 1000,
    "ns_tid": 1000,
    "host_pid": 1000,
    "host_tid": 1000,
    "comm": "python",
    "function": 0,
}
_NOT_GIVEN_SO = {"retval": "result", "arg": "arguments", "regs": "registers"}


class Frame:
    """One hit: what it brings along.

    *arguments* are those of the probed function (or the fields of the tracepoint's record): by name, or in order.
    *result* is what it returns. *registers* are those at the hit, *after* those behind the `yield` where they differ.
    *memory* maps addresses to bytes: what pointers given as integers point to. All else are builtins by name:
    `Frame(..., comm="bash", pid=7, now=(1_000, 5_000))`; a tuple has one value before the `yield` and one behind it.

    *variables* are what `var()` and `percpu()` find by name, *addresses* what `address_of()` does.

    *types* and *prototype* are those of the target, with which integers become pointers and structs are found in
    *memory*; recorded frames have them, and the name of the *site* that was hit. *arch* tells which registers there
    are.

    Raises:
        UsageError: no builtin is called so.
    """

    def __init__(
        self,
        arguments: Mapping[str, object] | Sequence[object] = (),
        result: object = 0,
        *,
        registers: Mapping[str, int] | None = None,
        after: Mapping[str, int] | None = None,
        memory: Mapping[int, bytes] | None = None,
        types: Types | None = None,
        prototype: Function | None = None,
        site: str = "",
        arch: str = "x86_64",
        variables: Mapping[str, object] | None = None,
        addresses: Mapping[str, int] | None = None,
        **words: object,
    ) -> None:
        for word in words:
            if word not in DEFAULTS:
                hint = f"give it as {_NOT_GIVEN_SO[word]}=" if word in _NOT_GIVEN_SO else did_you_mean(word, DEFAULTS)
                raise UsageError(f"a frame has no {word!r}", hint=hint)
        self.named = dict(arguments) if isinstance(arguments, Mapping) else None
        self.arguments = tuple(arguments.values() if isinstance(arguments, Mapping) else arguments)
        self.result = result
        self.registers = dict(registers or {})
        self.after = self.registers if after is None else dict(after)
        self.memory = dict(memory or {})
        self.types = types
        self.prototype = prototype
        self.site = site
        self.arch = arch
        self.variables = dict(variables or {})
        self.addresses = dict(addresses or {})
        self.words = {**DEFAULTS, **words}

    @property
    def names(self) -> list[str]:
        """The names of the arguments, as far as they are known."""
        if self.named is not None:
            return list(self.named)
        return [one.name for one in self.prototype.parameters] if self.prototype else []

    def word(self, name: str, *, exit_part: bool) -> Any:
        """Return the builtin *name* before or behind the `yield`."""
        value = self.words[name]
        return value[exit_part] if isinstance(value, tuple) else value
