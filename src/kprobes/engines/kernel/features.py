"""What this machine's kernel can do: probed, and the conclusive answers kept by the kernel's build-id."""

from __future__ import annotations

import os
import struct

from kprobes.engines.kernel import cache
from kprobes.engines.kernel.files import mounted, read_bytes, read_text
from kprobes.model.features import Features

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_NOTES = "/sys/kernel/notes"
_BUILD_ID = 3

_QUESTIONS = ("kprobe", "uprobe", "kprobe_multi", "fentry", "ring_buffer", "attach_cookie", "perf_link")


def parse_build_id(notes: bytes) -> str:
    """Return the build-id in ELF *notes* as hex digits, empty where there is none.

    Source: elf(5), "Notes (Nhdr)"; NT_GNU_BUILD_ID.
    """
    place = 0
    while place + 12 <= len(notes):
        name_size, size, kind = struct.unpack_from("<III", notes, place)
        name_end = place + 12 + (name_size + 3 & ~3)
        if kind == _BUILD_ID and notes[place + 12 : place + 12 + name_size] == b"GNU\0":
            return notes[name_end : name_end + size].hex()
        place = name_end + (size + 3 & ~3)
    return ""


def parse_cpus(text: str) -> int:
    """Return how many CPUs a list such as `0-3,8` has; 1 where it can't be read."""
    count = 0
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            return max(count, 1)
        count += int(last or first) - int(first) + 1
    return max(count, 1)


def count_cpus() -> int:
    """Return for how many CPUs this kernel has room."""
    return parse_cpus(read_text("/sys/devices/system/cpu/possible"))


def machine() -> str:
    """Return the architecture of this kernel: `x86_64`, `aarch64`, `i386` whatever its generation."""
    name = os.uname().machine
    return "i386" if len(name) == 4 and name[0] == "i" and name.endswith("86") else name


def probe_features() -> Features:
    """Return what this kernel can do, asking it only what the cache does not say."""
    key = parse_build_id(read_bytes(_NOTES) or b"")
    known = cache.load_answers(key)
    answers: dict[str, bool | None] = {**known}
    if any(name not in known for name in _QUESTIONS):
        from kprobes.engines.kernel.trial import TRIALS

        answers |= {name: TRIALS[name]() for name in _QUESTIONS if name not in known}
        conclusive = {name: answer for name, answer in answers.items() if answer is not None}
        if len(conclusive) > len(known):
            cache.store_answers(key, conclusive)
    refusal, hint = explain(answers)
    return Features(
        key=key,
        release=os.uname().release,
        cpus=count_cpus(),
        kprobe=answers["kprobe"],
        uprobe=answers["uprobe"],
        kprobe_multi=answers["kprobe_multi"],
        fentry=answers["fentry"],
        ring_buffer=answers["ring_buffer"],
        attach_cookie=answers["attach_cookie"],
        perf_link=answers["perf_link"],
        tracefs=mounted("tracefs"),
        machine=machine(),
        refusal=refusal,
        hint=hint,
    )


def explain(answers: Mapping[str, bool | None]) -> tuple[str, str]:
    """Return why no kernel function can be probed, and what to do; empty texts where one can."""
    if answers["ring_buffer"] is None:
        from kprobes.engines.kernel.privilege import missing_right

        refused = missing_right("asking this kernel for BPF")
        return "this user may not probe the kernel", refused.hint
    if answers["ring_buffer"] is False:
        return "this kernel has no BPF ring buffer (it is older than 5.8, or built without BPF)", _BOX
    if any(answers[way] for way in ("kprobe", "kprobe_multi", "fentry")):
        return "", ""
    if answers["kprobe"] is None:
        from kprobes.engines.kernel.privilege import missing_right

        return "this kernel refuses kprobes", missing_right("attaching a kprobe").hint
    return "this kernel has no kprobes (CONFIG_KPROBES is off)", _BOX


_BOX = "use --vm: a kernel in a box that can be probed; a process of your own can be probed with -p PID"
