"""`python -m bench [NAMES...]`: run the benchmarks named (default: all), print the table."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import time
from importlib import import_module

from bench.figures import Figure, table
from bench.lab import Lab

NAMES = (
    "start",
    "box",
    "hits",
    "compiling",
    "grammar",
    "listing",
    "types",
    "instructions",
    "attaching",
    "events",
    "footprint",
    "process_hits",
    "process_attach",
)
_NEW_MOUNTS, _PRIVATE_AND_BELOW = 0x00020000, 1 << 18 | 1 << 14


def main(words: list[str]) -> int:
    """Run what *words* name; return 0 if every goal is met, 1 if not, 2 if a name is unknown."""
    unknown = [word for word in words if word not in NAMES]
    if unknown:
        print(f"bench: no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    _mount_tracefs_for_us()
    figures: list[Figure] = []
    begin = time.monotonic()
    with Lab() as lab:
        for name in words or NAMES:
            lab.say(f"{name} ...")
            for figure in import_module(f"bench.{name}").run(lab):
                figures.append(figure)
                print("  ".join(cell for cell in figure.cells() if cell), file=sys.stderr)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"\n{table(figures)}")
    print(
        f"Linux {platform.release()}, Python {platform.python_version()}, {os.cpu_count()} CPUs, load {load}, "
        f"{time.monotonic() - begin:.0f} s"
    )
    missed = [figure.name for figure in figures if figure.verdict == "MISSED"]
    return 1 if missed else 0


def _mount_tracefs_for_us() -> None:
    """Mount tracefs for this process and its children alone: references need it, and the machine may not have it."""
    if os.geteuid() or os.path.exists("/sys/kernel/tracing/events"):  # noqa: PTH110
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_MOUNTS) == 0 and libc.mount(b"none", b"/", None, _PRIVATE_AND_BELOW, None) == 0:
        libc.mount(b"tracefs", b"/sys/kernel/tracing", b"tracefs", 0, None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
