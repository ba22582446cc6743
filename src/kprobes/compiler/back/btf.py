"""Writes the BTF of a program: a prototype for each function, and the strings that line info points at.

It holds only kinds that the first kernels with BTF knew (INT, FUNC_PROTO, FUNC), so that every
kernel since 5.0 takes it.

Source: Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import struct

_MAGIC, _VERSION, _HEADER = 0xEB9F, 1, 24
_INT, _FUNC, _FUNC_PROTO = 1, 12, 13
_INT_TYPE, _PROTOTYPE = 1, 2
_GLOBAL = 1


class BtfText:
    """BTF being written: `int f(void)` for each function."""

    def __init__(self) -> None:
        self._strings = bytearray(b"\0")
        self._offsets: dict[str, int] = {"": 0}
        self._types = bytearray()
        self._count = 0
        self._add(self.string("int"), _INT << 24, 4, struct.pack("<I", 1 << 24 | 32))  # signed, 32 bits
        # Without parameters: the kernel would try to make out the type of the context, and complain in its log.
        self._add(0, _FUNC_PROTO << 24, _INT_TYPE)

    def _add(self, name: int, info: int, size_or_type: int, rest: bytes = b"") -> int:
        self._types += struct.pack("<III", name, info, size_or_type) + rest
        self._count += 1
        return self._count

    def string(self, text: str) -> int:
        """Return the offset of *text*; each string is stored once. NUL ends a string, so it is shown as a space."""
        offset = self._offsets.get(text)
        if offset is None:
            offset = self._offsets[text] = len(self._strings)
            self._strings += text.replace("\0", " ").encode("utf-8", "replace") + b"\0"
        return offset

    def function(self, name: str) -> int:
        """Add a function; return its type id. The name has to be a C identifier."""
        identifier = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name)
        if not identifier or identifier[0].isdigit():
            identifier = f"_{identifier}"
        return self._add(self.string(identifier[:127]), _FUNC << 24 | _GLOBAL, _PROTOTYPE)

    def finish(self) -> bytes:
        """Return the blob."""
        types, strings = bytes(self._types), bytes(self._strings)
        head = struct.pack("<HBBIIIII", _MAGIC, _VERSION, 0, _HEADER, 0, len(types), len(types), len(strings))
        return head + types + strings
