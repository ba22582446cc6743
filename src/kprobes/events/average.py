"""What an Avg holds."""

from __future__ import annotations

from kprobes.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Average:
    """The mean of *count* values whose sum is *total*."""

    count: int
    total: int

    @property
    def mean(self) -> float:
        """Return the mean; 0.0 where there are no values."""
        return self.total / self.count if self.count else 0.0

    @property
    def weight(self) -> float:
        """Return by what the first of several comes first."""
        return self.mean

    def __float__(self) -> float:
        return self.mean

    def __add__(self, other: Average) -> Average:
        """Return both together."""
        return Average(self.count + other.count, self.total + other.total)

    def __bool__(self) -> bool:
        return self.count > 0

    def __str__(self) -> str:
        return f"{self.mean:.6g} ({self.count} values)" if self.count else "(no values)"
