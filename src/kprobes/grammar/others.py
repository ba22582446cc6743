"""Lines of dynamic_events that define what is no kprobe and no uprobe: known by their first word, and no further."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.grammar.facts import Dialect

_HEAD = re.compile(r"\s*([efst])\d*(?::\S*)?(?:\s|\Z)")
_NAMES = {"e": "event probes", "f": "fprobes", "s": "synthetic events", "t": "tracepoint probes"}
# What came with them, in Debian's kernels.
_SINCE = {"e": "symstr", "f": "btf", "t": "btf"}


def other_kind(line: str, language: Dialect) -> str:
    """Return what a line of dynamic_events would define if its kernel takes it, where that isn't modelled here; else
    nothing."""
    match = _HEAD.match(line)
    if match is None or not getattr(language, _SINCE.get(match[1], ""), True):
        return ""
    return _NAMES[match[1]]
