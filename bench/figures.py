"""A figure and the table of all figures."""

from __future__ import annotations

from dataclasses import dataclass

HEADINGS = ("FIGURE", "OURS", "REFERENCE", "RATIO", "GOAL", "VERDICT")


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the result.

    *ours* and *reference* are in *unit*. The goal is *most* of ours over the reference (*least* where more is better),
    or with *absolute* of ours itself. A figure without a goal is there to be known. *note* says what was skipped.
    """

    name: str
    ours: float | None
    reference: float | None = None
    unit: str = "s"
    against: str = ""
    most: float | None = None
    least: float | None = None
    absolute: bool = False
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Return ours over the reference's."""
        return self.ours / self.reference if self.ours is not None and self.reference else None

    @property
    def verdict(self) -> str:
        """Return `met`, `MISSED`, `skipped`, or nothing where there is no goal."""
        value = self.ours if self.absolute else self.ratio
        if self.most is None and self.least is None:
            return self.note
        if value is None:
            return "skipped"
        good = value <= self.most if self.most is not None else value >= (self.least or 0)
        return "met" if good else "MISSED"

    def cells(self) -> tuple[str, ...]:
        """Return the line of the table."""
        goal = ""
        if self.most is not None:
            goal = f"<= {show(self.most, self.unit) if self.absolute else f'{self.most:g}'}"
        elif self.least is not None:
            goal = f">= {show(self.least, self.unit) if self.absolute else f'{self.least:g}'}"
        reference = f"{show(self.reference, self.unit)} {self.against}" if self.reference is not None else self.against
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        return self.name, show(self.ours, self.unit), reference, ratio, goal, self.verdict


def show(value: float | None, unit: str) -> str:
    """Return *value* with its *unit*; seconds in whatever reads well."""
    if value is None:
        return "-"
    if unit == "s":
        for size, name in ((1, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")):
            if abs(value) >= size:
                return f"{value / size:.3g} {name}"
        return "0"
    return f"{value:,.0f} {unit}".strip() if abs(value) >= 100 else f"{value:.3g} {unit}".strip()


def table(figures: list[Figure]) -> str:
    """Return the table of *figures*."""
    rows = [HEADINGS, *(figure.cells() for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = []
    for row in rows:
        padded = [
            cell.rjust(width) if 0 < column < 4 and column != 2 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines) + "\n"
