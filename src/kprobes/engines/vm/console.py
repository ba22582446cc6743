"""What the guest's console said last: the only witness when a guest dies."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass, field

KEPT_LINES = 200
LONGEST_LINE = 500
SHOWN_LINES = 10

# Where one of these stands, it and what came right before it tell more than the trace after it.
LAST_WORDS = (b"Kernel panic", b"BUG:", b"Oops:", b"qemu-system")


@dataclass(slots=True)
class Console:
    """The last lines of the guest's console."""

    lines: deque[bytes] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))

    def read(self, descriptor: int) -> None:
        """Read *descriptor* to its end."""
        rest = b""
        while data := os.read(descriptor, 1 << 14):
            *whole, rest = (rest + data).split(b"\n")
            self.lines.extend(line.rstrip(b"\r")[:LONGEST_LINE] for line in whole)
            rest = rest[:LONGEST_LINE]
        if rest:
            self.lines.append(rest)

    def tail(self, count: int = SHOWN_LINES) -> str:
        """Return the last lines, up to the kernel's last words, as text that is safe on a terminal."""
        lines = list(self.lines)
        ends = [number for number, line in enumerate(lines) if any(word in line for word in LAST_WORDS)]
        end = ends[0] + 1 if ends else len(lines)
        shown = [line.decode("utf-8", "backslashreplace") for line in lines[max(0, end - count) : end]]
        return "\n".join("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line) for line in shown)
