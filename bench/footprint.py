"""What an installation takes on disk: the packages that kprobes needs, as pip laid them out in this environment."""

from __future__ import annotations

from importlib.metadata import distribution
from typing import TYPE_CHECKING

from bench.figures import Figure

if TYPE_CHECKING:
    from bench.lab import Lab

MEGABYTE = 1_000_000


def run(_lab: Lab) -> list[Figure]:
    """Return the size of each package, and of both."""
    sizes = {name: _size_mb(name) for name in ("llvmlite", "iced-x86")}
    figures = [Figure(f"installed: {name}", size, unit="MB") for name, size in sizes.items()]
    return [*figures, Figure("installed: all that kprobes needs", sum(sizes.values()), unit="MB")]


def _size_mb(name: str) -> float:
    files = distribution(name).files or ()
    return sum(path.stat().st_size for path in (file.locate() for file in files) if path.is_file()) / MEGABYTE
