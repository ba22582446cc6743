"""Patterns of `~` in filters.

Of a pattern that begins with a digit the kernel takes all characters as they are. In an array of fixed size, such as a
task's name, it looks at all bytes for what stars enclose, and at the last but one for an end, not at that of the text:
`*at` is found in a name of 15 characters alone.

Source: Documentation/trace/events.rst, filter_parse_regex() and regex_match_end() of
kernel/trace/trace_events_filter.c, and the kernels' answers.
"""

from __future__ import annotations


def matches_pattern(pattern: str, text: str, size: int = 0) -> bool:
    """Return whether *text* matches *pattern*: `*`, `?`, `[a-z]`, `[!a-z]`, a backslash; `!` before it inverts.

    *size* is that of the array of bytes that the text lies in, where that is fixed; *text* may tell what is behind its
    NUL, too.
    """
    inverted = pattern[:1] == "!"
    if inverted:
        pattern = pattern[1:]
    return _matches(pattern, text, size) != inverted


def equals(text: str, wanted: str, size: int = 0) -> bool:
    """Return whether *text*, in an array of *size* bytes where that is fixed, is *wanted*."""
    return text.partition("\0")[0] == (wanted[:size] if size else wanted)


def plain_parts(pattern: str) -> tuple[bool, str, bool] | None:
    """Return of *pattern* (without the `!`) whether a star stands before, what all texts hold, and whether one stands
    behind; None where it takes more than that to match."""
    if "0" <= pattern[:1] <= "9":
        return False, pattern, False
    inner = pattern[1:] if pattern[:1] == "*" else pattern
    body = inner[:-1] if inner[-1:] == "*" and len(pattern) > 1 else inner
    if any(char in "*[?\\" for char in body):
        return None
    return pattern[:1] == "*", body, len(pattern) > 1 and pattern[-1:] == "*"


def _matches(pattern: str, text: str, size: int) -> bool:
    parts = plain_parts(pattern)
    if parts is None:
        return _glob(pattern, text.partition("\0")[0])
    front, body, end = parts
    if front and end:
        return body in text
    if front:
        return text.ljust(size, "\0")[: size - 1 if size else None].endswith(body)
    return text.startswith(body) if end else equals(text, body, size)


def _glob(pattern: str, text: str) -> bool:
    """Match as the kernel's glob: a star goes back to where it began, nothing else does."""
    at = here = 0
    star, resume = -1, 0
    while True:
        char = pattern[at : at + 1]
        if char == "*":
            star, resume, at = at + 1, here, at + 1
            if at == len(pattern):
                return True
            continue
        if here == len(text):
            return not char
        matched, after = _element(pattern, at, text[here]) if char else (False, at)
        if matched:
            at, here = after, here + 1
        elif star < 0:
            return False
        else:
            resume += 1
            at, here = star, resume


def elements_of(pattern: str) -> tuple[bytes, ...]:
    """Return the elements of *pattern*: the characters (Latin-1, without NUL) that each accepts, ascending; an empty
    one is a star."""
    found = []
    at = 0
    while at < len(pattern):
        if pattern[at] == "*":
            found.append(b"")
            at += 1
            continue
        accepted = bytes(code for code in range(1, 256) if _element(pattern, at, chr(code))[0])
        found.append(accepted)
        at = _element(pattern, at, "x")[1]
    return tuple(found)


def _element(pattern: str, at: int, char: str) -> tuple[bool, int]:
    """Return whether *char* matches the element of *pattern* at *at*, and where the next one begins."""
    head = pattern[at]
    if head == "?":
        return True, at + 1
    if head == "[":
        found = _class(pattern, at, char)
        if found is not None:
            return found
    if head == "\\" and at + 1 < len(pattern):
        return pattern[at + 1] == char, at + 2
    return head == char, at + 1


def _class(pattern: str, at: int, char: str) -> tuple[bool, int] | None:
    """Return the answer of a character class, None where it is not closed (its bracket is a bracket then)."""
    begin = at + 1
    inverted = pattern[begin : begin + 1] == "!"
    begin += inverted
    here, matched = begin, False
    while here == begin or pattern[here : here + 1] != "]":
        low = pattern[here : here + 1]
        if not low:
            return None
        here += 1
        high = low
        if pattern[here : here + 1] == "-" and pattern[here + 1 : here + 2] not in {"", "]"}:
            high = pattern[here + 1]
            here += 2
        matched = matched or low <= char <= high
    return matched != inverted, here + 1
