"""What a target can do, probed and never guessed from its version."""

from __future__ import annotations

from kprobes.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Features:
    """The answers of the feature probes. Three-valued ones are True, False or None (could not tell).

    *key* names the kernel exactly (build-id of vmlinux, hex); *release* is `uname -r`, for people only.
    *machine* is the architecture, by the kernel's name of it. *cpus* is the number of possible CPUs. *refusal*
    explains why nothing can be probed, empty where it can.
    """

    key: str
    release: str
    cpus: int
    kprobe: bool | None
    uprobe: bool | None
    kprobe_multi: bool | None
    fentry: bool | None
    ring_buffer: bool | None
    attach_cookie: bool | None
    perf_link: bool | None
    tracefs: str = ""
    machine: str = "x86_64"
    refusal: str = ""
    hint: str = ""
