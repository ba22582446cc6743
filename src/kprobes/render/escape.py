"""Text from outside, made safe for a terminal.

Names of programs and files, symbols, arguments and error texts come from whoever runs on the probed machine. Escape
sequences in them could move the cursor or retitle the window, bidi controls could show text in another order than it
is. What can't be seen is shown as an escape.
"""

from __future__ import annotations

_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
# `surrogateescape` keeps a byte 0x80..0xff that is no UTF-8 as U+DC80..U+DCFF.
_FIRST_BYTE, _LAST_BYTE = 0xDC80, 0xDCFF


def escape(text: str) -> str:
    """Return *text* with everything that can't be seen as an escape; safe to print.

    Escaped are C0 and C1 controls, DEL, bidi and other format controls, line separators, private and unassigned code
    points (`\\n`, `\\x1b`, `\\u202e`), and bytes that are no UTF-8: from `\\x80` on that is always a raw byte.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _visible(char) for char in text)


def escape_lines(text: str) -> str:
    """Return *text* escaped but for its line breaks: for messages of several lines, never for names."""
    return "\n".join(map(escape, text.expandtabs(4).split("\n")))


def _visible(char: str) -> str:
    named = _NAMED.get(char)
    if named:
        return named
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    if _FIRST_BYTE <= code <= _LAST_BYTE:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
