"""Names in generated C: every one an identifier, none of C's own words, none twice."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

KEYWORDS = (
    "auto bool break case char const continue current default do double else enum extern false float for goto if inline"
    " int long register restrict return short signed sizeof static struct switch true typedef typeof union unsigned"
    " void volatile while u8 u16 u32 u64 s8 s16 s32 s64 NULL"
)
_WORDS = frozenset(KEYWORDS.split(" "))
_OTHER = re.compile(r"[^0-9A-Za-z_]+")


def identifier(name: str) -> str:
    """Return *name* as an identifier of C that is no word of the language."""
    found = _OTHER.sub("_", name).strip("_") or "probe"
    if found[0].isdigit():
        found = f"p_{found}"
    return f"{found}_" if found in _WORDS else found


class Names:
    """Gives out identifiers of one scope, each once; *taken* are not to be had."""

    def __init__(self, taken: frozenset[str] = frozenset()) -> None:
        self._taken = set(taken)

    def new(self, wanted: str) -> str:
        """Return an identifier that looks like *wanted*."""
        base = identifier(wanted)
        found, number = base, 2
        while found in self._taken:
            found, number = f"{base}_{number}", number + 1
        self._taken.add(found)
        return found


def c_string(text: str) -> str:
    """Return *text* as a string literal of C."""
    out = []
    for byte in text.encode("utf-8", "surrogateescape"):
        character = chr(byte)
        if character in '"\\':
            out.append(f"\\{character}")
        elif 32 <= byte < 127:
            out.append(character)
        else:
            out.append({10: "\\n", 9: "\\t"}.get(byte, f"\\{byte:03o}"))
    return f'"{"".join(out)}"'


def comment_text(text: str) -> str:
    """Return *text* so that it can stand in a comment: nothing ends that early."""
    plain = "".join(one if one.isprintable() else "?" for one in text)
    return plain.replace("*/", "* /").replace("/*", "/ *")


def comment(lines: Sequence[str], width: int = 96) -> str:
    """Return *lines* as a block comment; what is too long goes on in the next line."""
    from textwrap import wrap

    shown = []
    for line in lines:
        shown += wrap(comment_text(line), width, subsequent_indent="    ", break_long_words=False) or [""]
    return "/*\n" + "".join(f" * {line}".rstrip() + "\n" for line in shown) + " */\n"


def wrapped(values: list[str], width: int = 80) -> list[str]:
    """Return the rest of a call, its arguments and the end, in lines of about *width* columns."""
    lines = [""]
    for value in values:
        if lines[-1] and len(lines[-1]) + len(value) > width:
            lines.append("")
        lines[-1] += f"{' ' if lines[-1] else ''}{value},"
    return [*lines[:-1], f"{lines[-1][:-1]});"]
