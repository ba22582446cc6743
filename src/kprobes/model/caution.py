"""What a handler's author probably didn't mean, though it compiles."""

from __future__ import annotations

from kprobes.frozen import dataclass

# A line with this remark is left alone.
IGNORE = "# kprobes: ignore"


@dataclass(frozen=True, slots=True)
class Caution:
    """A warning about *line* (from 1) and *column* (from 0) of *file*; *source* is the text of that line."""

    what: str
    hint: str
    file: str
    line: int
    column: int
    source: str

    def __str__(self) -> str:
        return f"{self.what} ({self.hint})"
