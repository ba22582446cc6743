"""Small shapes that several commands show: expressions split at commas, distributions as histogram rows."""

from __future__ import annotations

from kprobes.errors import UsageError

_OPENING = {"(": ")", "[": "]", "{": "}"}


def split_expressions(text: str) -> list[str]:
    """Split `a, f(b, c), "d,e"` at the commas outside brackets and strings.

    Raises:
        UsageError: a bracket or string is left open, or an expression is empty.
    """
    parts, current, closing, quote = [], "", [], ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in _OPENING:
            closing.append(_OPENING[letter])
        elif closing and letter == closing[-1]:
            closing.pop()
        elif letter == "," and not closing:
            parts.append(current.strip())
            current = ""
            continue
        current += letter
    if quote or closing:
        raise UsageError(
            f"{text!r} leaves {quote or closing[-1]} open", hint="close it, and quote the whole for the shell"
        )
    if text.strip():
        parts.append(current.strip())
    if not all(parts):
        raise UsageError(f"an expression of {text!r} is empty", hint="take the comma out")
    return parts
