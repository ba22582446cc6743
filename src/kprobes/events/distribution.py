"""What a Histogram holds: counts by bucket, and what can be said from them."""

from __future__ import annotations

from kprobes.frozen import dataclass
from kprobes.model.layout import Buckets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_BAR = 40


@dataclass(frozen=True, slots=True)
class Distribution:
    """How often values fell into each of *buckets*; *counts* has `buckets.total` entries.

    The values themselves are gone, so `mean` and `percentile` take the values of a bucket as spread evenly over it:
    with powers of two they are right within a factor of two, and usually far closer.
    """

    buckets: Buckets
    counts: tuple[int, ...]

    @property
    def total(self) -> int:
        """Return the number of values."""
        return sum(self.counts)

    @property
    def weight(self) -> int:
        """Return by what the first of several comes first."""
        return self.total

    @property
    def rows(self) -> list[tuple[int | None, int | None, int]]:
        """Return (low, high, count) of the buckets from the first to the last that isn't empty.

        A bucket holds low <= value < high; None where it is open on that side.
        """
        filled = [index for index, count in enumerate(self.counts) if count]
        if not filled:
            return []
        return [(*self._bounds(index), self.counts[index]) for index in range(filled[0], filled[-1] + 1)]

    @property
    def mean(self) -> float:
        """Return about the mean; 0.0 where there are no values."""
        total = self.total
        if not total:
            return 0.0
        return sum(count * (low + high) / 2 for low, high, count in self._spans()) / total

    def percentile(self, percent: float) -> float:
        """Return about the value below which *percent* of the values lie; 0.0 where there are none."""
        rank = self.total * min(max(percent, 0.0), 100.0) / 100
        seen = 0
        value = 0.0
        for low, high, count in self._spans():
            value = low + (high - low) * min(max(rank - seen, 0.0), count) / count
            seen += count
            if seen >= rank:
                break
        return value

    def marks(self) -> tuple[tuple[str, float], ...]:
        """Return what is worth saying about the whole: (name, value) of mean and percentiles; () when empty."""
        if not self.total:
            return ()
        percentiles = ((f"p{percent}", self.percentile(percent)) for percent in (50, 90, 99))
        return (("mean", self.mean), *percentiles)

    def __add__(self, other: Distribution) -> Distribution:
        """Return both together.

        Raises:
            ValueError: their buckets differ.
        """
        if self.buckets != other.buckets:
            raise ValueError("distributions with different buckets can't be added")
        return Distribution(self.buckets, tuple(map(int.__add__, self.counts, other.counts)))

    def __bool__(self) -> bool:
        return any(self.counts)

    def __repr__(self) -> str:
        about = "".join(f", {name}≈{value:.4g}" for name, value in self.marks())
        return f"Distribution(total={self.total}{about})"

    def __str__(self) -> str:
        rows = self.rows
        if not rows:
            return "(no values)"
        most = max(count for _, _, count in rows)
        labels = [_label(low, high) for low, high, _ in rows]
        wide = max(map(len, labels))
        digits = len(str(most))
        return "\n".join(
            f"{label:>{wide}} {count:>{digits}} |{'@' * (count * _BAR // most):<{_BAR}}|"
            for label, (_, _, count) in zip(labels, rows, strict=True)
        )

    def _bounds(self, index: int) -> tuple[int | None, int | None]:
        buckets = self.buckets
        if buckets.scale == "log2":
            if index < 2:
                return (None, 0) if index == 0 else (0, 1)
            return 1 << (index - 2), 1 << (index - 1)
        low = buckets.low + (index - 1) * buckets.step
        if index == 0:
            return None, buckets.low
        return low, None if index == len(self.counts) - 1 else low + buckets.step

    def _spans(self) -> Iterator[tuple[int, int, int]]:
        """Yield (low, high, count) of the buckets that aren't empty; an open side is closed at one step (or at -1)."""
        step = self.buckets.step if self.buckets.scale == "linear" else 1
        for low, high, count in self.rows:
            if count:
                start = high - step if low is None and high is not None else low or 0
                yield start, start + step if high is None else high, count


def _label(low: int | None, high: int | None) -> str:
    if low is None:
        return f"< {high}"
    return f">= {low}" if high is None else f"[{low}, {high})"
