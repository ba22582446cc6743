"""Which process the probes of files are limited to."""

from __future__ import annotations

from kprobes.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Within:
    """The process *pid* (-1: every process); *program* is the path it is about to run, empty where it runs already.

    *native*: the process engine probes it, not the kernel.
    """

    pid: int = -1
    program: str = ""
    native: bool = False


ANYWHERE = Within()
