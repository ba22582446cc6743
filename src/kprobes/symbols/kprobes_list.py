"""The kernel's own lists of kprobes, in debugfs: what is armed now, and where none may go.

`list` has a line for each registered probe: `ADDRESS  k|r  SYMBOL+OFFSET MODULE [GONE][DISABLED][OPTIMIZED][FTRACE]`,
`blacklist` one for each span of code: `0xFROM-0xTO<tab>NAME`. Addresses are zero for those who may not see them.
Links of fprobe, fentry and fexit are no kprobes and stand in neither.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kprobes.frozen import dataclass
from kprobes.model.listed import Listed, State

if TYPE_CHECKING:
    from collections.abc import Iterator

_ARMED = re.compile(r"^([0-9a-f]+)  ([kr])  (\S+)(?: +([^\s\[]\S*))? *((?:\[[A-Z]+\])*)\s*$", re.MULTILINE)
_SPAN = re.compile(r"^0x([0-9a-f]+)-0x([0-9a-f]+)\s+(\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Blacklisted:
    """Code from *begin* to below *end* (both 0 where hidden) that no kprobe may go to; *name* is its function."""

    name: str
    begin: int
    end: int


def parse_blacklist(text: str) -> Iterator[Blacklisted]:
    """Yield the spans of a blacklist; lines that are none are left out."""
    for begin, end, name in _SPAN.findall(text):
        yield Blacklisted(name, int(begin, 16), int(end, 16))


def parse_list(text: str) -> Iterator[Listed]:
    """Yield the kprobes of a list; lines that are none are left out."""
    for address, kind, name, module, flags in _ARMED.findall(text):
        state = State.GONE if "[GONE]" in flags else State.DISABLED if "[DISABLED]" in flags else State.ARMED
        way = "jump" if "[OPTIMIZED]" in flags else "ftrace" if "[FTRACE]" in flags else "breakpoint"
        yield Listed(int(address, 16), kind, name, module, way, "", state, jumps=bool(state) and way == "jump")
