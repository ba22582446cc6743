"""Lists of CPUs as the kernel reads them: `0-3,7`, `all`, `0-N:2/4` (two of each four), `N` for the last one.

Source: bitmap_parselist() of lib/bitmap-str.c.
"""

from __future__ import annotations

import re

_NUMBER = r"(\d+|N)"
_REGION = re.compile(rf"(?:[aA][lL][lL]|{_NUMBER}(?:-{_NUMBER})?)(?::{_NUMBER}/{_NUMBER})?")
_SEPARATORS = re.compile(r"[\s,]*")
_TOO_LARGE = 1 << 32


def parse_cpus(text: str, count: int) -> tuple[int, ...] | None:
    """Return the CPUs of a list, of *count* that there may be; None where the kernel refuses it."""
    found: set[int] = set()
    at = len(_SEPARATORS.match(text)[0])  # type: ignore[index]  # it matches anything
    while at < len(text):
        match = _REGION.match(text, at)
        region = _region(match, count) if match else None
        if match is None or region is None:
            return None
        found |= region
        at = match.end()
        gap = len(_SEPARATORS.match(text, at)[0])  # type: ignore[index]
        if at < len(text) and not gap and match[3] is None:
            return None
        at += gap
    return tuple(sorted(found))


def _region(match: re.Match[str], count: int) -> set[int] | None:
    numbers = [count - 1 if one == "N" else int(one) if one else None for one in match.groups()]
    if any(one is not None and one >= _TOO_LARGE for one in numbers):
        return None
    low, high, used, group = numbers
    if low is None:
        low, high = 0, count - 1
    if high is None:
        if used is not None:  # a pattern needs a range
            return None
        high = low
    used, group = (high + 1, high + 1) if used is None or group is None else (used, group)
    if low > high or not group or used > group or high >= count:
        return None
    return {one for start in range(low, high + 1, group) for one in range(start, min(high + 1, start + used))}
