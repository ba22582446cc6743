"""Where benchmarks run: a temporary directory for everything they write, programs built for them, and clocks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ROOT = Path(__file__).parents[1]
PROGRAMS = Path(__file__).parent / "programs"


@dataclass(frozen=True, slots=True)
class Times:
    """Durations in seconds of several runs."""

    runs: tuple[float, ...]

    @property
    def least(self) -> float:
        """Return the shortest: what it takes where nothing disturbs."""
        return min(self.runs)

    @property
    def middle(self) -> float:
        """Return the median."""
        return median(self.runs)


class Lab:
    """A context manager; nothing that benchmarks write outlives it.

    Compiled Python goes there too (PYTHONPYCACHEPREFIX), since an installed package has it and a working tree may not,
    and so does our cache unless a benchmark asks for the user's, which holds kernels.
    """

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="kprobes-bench-"))
        self.environment = {
            name: text for name, text in os.environ.items() if name not in ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH")
        }
        self.environment["PYTHONPYCACHEPREFIX"] = str(self.directory / "pycache")
        self.command = str(Path(sys.executable).with_name("kprobes"))

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def build(self, name: str, *options: str) -> Path:
        """Return the program made from `programs/NAME.c`."""
        target = self.directory / name
        if not target.exists():
            words = ["gcc", "-O2", "-g", *options, "-o", str(target), str(PROGRAMS / f"{name}.c")]
            subprocess.run(words, check=True, capture_output=True, text=True)
        return target

    def say(self, text: str) -> None:
        """Tell what is being done."""
        print(f"bench: {text}", file=sys.stderr, flush=True)

    def first_output(
        self,
        command: Sequence[str],
        *,
        sign: bytes = b"",
        environment: Mapping[str, str] | None = None,
        timeout_s: float = 120,
    ) -> float:
        """Return the seconds from the start of *command* to *sign* (default: anything) on its standard output.

        Raises:
            RuntimeError: it ended without; the message has what it said on its standard error.
        """
        errors = self.directory / "errors"
        with errors.open("wb") as said:
            begin = time.perf_counter()
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
                env={**self.environment, **(environment or {})},
            )
            assert process.stdout is not None
            seen, took = b"", None
            while piece := os.read(process.stdout.fileno(), 65536):
                seen += piece
                if took is None and sign in seen:
                    took = time.perf_counter() - begin
            process.stdout.close()
            process.wait(timeout_s)
        if took is None:
            raise RuntimeError(f"{' '.join(command)}: {errors.read_text('utf-8', 'replace').strip()[-500:]}")
        return took


def in_turns(rounds: int, ways: Mapping[str, Callable[[], float]]) -> dict[str, Times]:
    """Measure each of *ways* once a round; one that can't be measured is left out."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    broken: set[str] = set()
    for _ in range(rounds):
        for name, way in ways.items():
            if name in broken:
                continue
            try:
                found[name].append(way())
            except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                print(f"bench: {name} can't be measured: {error}", file=sys.stderr)
                broken.add(name)
    return {name: Times(tuple(runs)) for name, runs in found.items() if runs and name not in broken}


def has(program: str) -> bool:
    """Return whether *program* is installed."""
    return shutil.which(program) is not None
