"""What `kprobes explain` tells: the steps of arming one probe, in order, each with its outcome."""

from __future__ import annotations

from kprobes.frozen import dataclass

WIDE = 34  # columns for the bytes of an instruction


def shown(code: bytes, text: str, address: int | None = None) -> str:
    """Return the line that shows an instruction: its bytes, its text, and its address where that matters."""
    line = f"{code.hex(' '):<{WIDE}}{text}"
    return line if address is None else f"{address:#x}  {line}"


class Outcome:
    """How a step ends: it goes on, goes on by another way, or the probe is refused."""

    PASSED = "yes"
    OTHER_WAY = "no"  # this way is closed; a slower one remains
    REFUSED = "refused"
    TOLD = ""  # nothing is decided here


@dataclass(frozen=True, slots=True)
class Step:
    """One step: its *title*, its *outcome* (see `Outcome`), the deciding *reason*, and *lines* that show the bytes;
    *error* is the kernel's name for a refusal (EINVAL, EILSEQ, EOPNOTSUPP)."""

    title: str
    outcome: str
    reason: str
    lines: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Explained:
    """The whole: *place* as it was understood, its *address*, and the *steps*.

    *way*: how a probe there is armed (`ftrace`, `jump`, `boosted`, `step`, `emulated`, or one of `model.plan.Way`),
    empty if it is refused; then *error* says by which errno.
    """

    place: str
    address: int
    way: str
    error: str
    steps: tuple[Step, ...]
