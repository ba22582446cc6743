"""Every error that kprobes raises for a reason a user can act on.

    KprobesError                     what went wrong + hint; the command line prints both and exits with 1
    ├── UsageError                   the request itself is off (exit code 2)
    ├── CompileError                 a handler is outside the language: file, line, column, source line; all mistakes
    │   └── VerifierError            the kernel's verifier refused the program, shown on the Python line
    ├── DefinitionError              (ValueError) the kernel refuses a probe definition: its message, column, errno
    ├── SymbolNotFoundError          (LookupError) no such symbol; carries the nearest names
    ├── AmbiguousSymbolError         (LookupError) several symbols of that name; carries the candidates
    ├── TypeNotFoundError            (LookupError) no such type, field or prototype
    ├── UnprobeableError             (ValueError) the place exists and can't be probed; carries the reason
    │   └── UnsafeSiteError          an instruction can't be moved or reached
    ├── FormatError                  (ValueError) malformed input file: ELF, BTF, kallsyms, plan
    ├── TargetError                  the target can't be opened, is gone, or died
    │   ├── PrivilegeError           (PermissionError) a right is missing
    │   └── UnsupportedError         the target lacks a feature
    ├── RegistrationError            (OSError) a probe can't be registered, enabled or disabled: the kernel's errno
    ├── SyscallError                 (OSError) a system call failed: what was being done, errno
    ├── DownloadError                a kernel package could not be had or is broken
    └── InternalError                an invariant of ours is broken; asks for a report

Besides there is `HandlerWarning`, a `UserWarning`: a handler that compiles and is probably not what was meant.

Nothing here imports anything of kprobes but `frozen`, which imports nothing.
"""

from __future__ import annotations

import os

from kprobes.frozen import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

REPORT = "this is a bug in kprobes: please report it with the command that you ran"


class KprobesError(Exception):
    """The root: *what* went wrong, and a *hint* on how to fix it (may be empty)."""

    exit_code = 1

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return self.what


class UsageError(KprobesError):
    """The request is off: an option, a probe's spelling, a combination."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Call:
    """Where *function*, which is compiled into its caller, is called; *source* is the text of that line."""

    function: str
    file: str
    line: int
    column: int
    source: str

    def __str__(self) -> str:
        return f"in {self.function}(), called at {self.file}:{self.line}: {self.source.strip()}"


class CompileError(KprobesError):
    """A handler is outside the language.

    *line* counts from 1, *column* from 0 (as `ast` has them); *source* is the text of that line. *calls* lead from the
    handler to the function with the mistake, the innermost first. *others* are further mistakes of the same handlers,
    behind this one in the text.
    """

    def __init__(
        self,
        what: str,
        *,
        hint: str = "",
        place: tuple[str, int, int] = ("", 0, 0),
        source: str = "",
        calls: tuple[Call, ...] = (),
    ) -> None:
        super().__init__(what, hint=hint)
        self.file, self.line, self.column = place
        self.source = source
        self.calls = calls
        self.others: tuple[CompileError, ...] = ()

    @property
    def mistakes(self) -> tuple[CompileError, ...]:
        """Return all mistakes that were found, this one first."""
        return (self, *self.others)

    def __str__(self) -> str:
        return "\n".join(one._text() for one in self.mistakes)

    def _text(self) -> str:
        if not self.line:
            return self.what
        lines = [f"{self.file}:{self.line}:{self.column + 1}: {self.what}"]
        if self.source:
            lines += [f"    {self.source.rstrip()}", f"    {' ' * self.column}^"]
        return "\n".join([*lines, *(f"  {call}" for call in self.calls)])

    @property
    def _origin(self) -> tuple[str, int, int]:
        """Return where the handler itself leads to the mistake."""
        one = self.calls[-1] if self.calls else self
        return one.file, one.line, one.column


def all_mistakes(errors: Iterable[CompileError]) -> CompileError:
    """Return *errors*, at least one, as one that carries the others: each once, in the order of the text."""
    found: dict[str, CompileError] = {}
    for error in errors:
        for one in error.mistakes:
            one.others = ()
            found.setdefault(str(one), one)
    first, *others = sorted(found.values(), key=lambda one: one._origin)
    first.others = tuple(others)
    return first


class VerifierError(CompileError):
    """The kernel's verifier refused a program; *log* is its whole log."""

    def __init__(
        self, what: str, *, log: str, place: tuple[str, int, int] = ("", 0, 0), source: str = "", hint: str = ""
    ) -> None:
        super().__init__(what, hint=hint, place=place, source=source)
        self.log = log


class HandlerWarning(UserWarning):
    """A handler compiles and is probably not what its author meant."""


class DefinitionError(KprobesError, ValueError):
    """A kernel refuses a probe definition.

    *message* is what it writes to its error log, empty where it writes nothing; *errno* is what `write` returns, *code*
    our name of the refusal. *command* is the definition as the log has it, *column* the place of the caret below it in
    bytes from 0: None where there is none, or where it depends on the kernel's memory.
    """

    def __init__(
        self, message: str, number: int, *, code: str = "", place: tuple[str, int | None] = ("", None), hint: str = ""
    ) -> None:
        super().__init__(message or os.strerror(number), hint=hint)
        self.message = message
        self.errno = number
        self.code = code
        self.command, self.column = place

    @property
    def indent(self) -> int | None:
        """Return how many characters of *command* stand before the caret."""
        if self.column is None:
            return None
        before = self.command.encode("utf-8", "surrogateescape")[: self.column]
        return len(before.decode("utf-8", "replace")) + self.column - len(before)

    def __str__(self) -> str:
        if not self.command:
            return self.what
        return f"{self.what}\n    {self.command}" + (f"\n    {' ' * self.indent}^" if self.indent is not None else "")


class SymbolNotFoundError(KprobesError, LookupError):
    """No symbol *name*; *nearest* are names that come close. *thing* is what the name was to be."""

    def __init__(
        self, name: str, *, nearest: tuple[str, ...] = (), where: str = "", hint: str = "", thing: str = "function"
    ) -> None:
        place = f" in {where}" if where else ""
        near = f"did you mean {', '.join(nearest)}?" if nearest else ""
        super().__init__(f"no {thing} {name!r}{place}", hint=hint or near)
        self.name = name
        self.nearest = nearest
        self.thing = thing


class AmbiguousSymbolError(KprobesError, LookupError):
    """Several symbols are called *name*; *candidates* are spellings that tell them apart."""

    def __init__(self, name: str, candidates: tuple[str, ...]) -> None:
        shown = ", ".join(candidates[:8]) + (f" and {len(candidates) - 8} more" if len(candidates) > 8 else "")
        super().__init__(
            f"{name!r} is ambiguous: {len(candidates)} symbols have this name",
            hint=f"name one of: {shown}",
        )
        self.name = name
        self.candidates = candidates


class TypeNotFoundError(KprobesError, LookupError):
    """No such type, field or prototype."""


class UnprobeableError(KprobesError, ValueError):
    """The place exists but no probe can go there; *reason* says why in a few words.

    *number* is the kernel's errno for that, 0 where it has none of its own.
    """

    def __init__(self, place: str, reason: str, *, hint: str = "", number: int = 0) -> None:
        super().__init__(f"{place} can't be probed: {reason}", hint=hint)
        self.place = place
        self.reason = reason
        self.number = number


class UnsafeSiteError(UnprobeableError):
    """An instruction can't be moved, or what it refers to can't be reached from its new place."""


class FormatError(KprobesError, ValueError):
    """A file or message is malformed."""


class TargetError(KprobesError):
    """The target can't be opened, is gone, died, or belongs to another; *number* is an errno for that, or 0."""

    def __init__(self, what: str, *, hint: str = "", number: int = 0) -> None:
        super().__init__(what, hint=hint)
        self.number = number


class PrivilegeError(TargetError, PermissionError):
    """A right is missing; the hint names it."""


class UnsupportedError(TargetError):
    """The target lacks what was asked for."""


class SyscallError(KprobesError, OSError):
    """A system call failed while *doing* something; `errno` is the kernel's."""

    def __init__(self, doing: str, number: int, *, hint: str = "") -> None:
        KprobesError.__init__(self, f"{doing}: {os.strerror(number)}", hint=hint)
        self.errno = number
        self.doing = doing


class RegistrationError(KprobesError, OSError):
    """A probe can't be registered, enabled or disabled.

    `errno` is what the kernel's own call returns, *name* its name.
    """

    def __init__(self, what: str, name: str, *, hint: str = "") -> None:
        import errno

        KprobesError.__init__(self, what, hint=hint)
        self.errno = int(getattr(errno, name))
        self.name = name

    def __str__(self) -> str:
        return f"{self.what} ({self.name})"


class DownloadError(KprobesError):
    """A package could not be downloaded, or what came is broken."""


class InternalError(KprobesError):
    """An invariant of kprobes is broken."""

    def __init__(self, what: str) -> None:
        super().__init__(f"internal error: {what}", hint=REPORT)
