"""What differs between guests of one architecture and another: the emulator and its machine, the kernel's words,
packages.

A kernel's name tells the architecture where it isn't the host's: `6.12-arm64`.
"""

from __future__ import annotations

from dataclasses import dataclass

from kprobes.errors import UsageError


@dataclass(frozen=True, slots=True)
class GuestArch:
    """One architecture of guests.

    *name* is the kernel's word for it (`uname -m`), *debian* the distribution's. *program* emulates it and comes with
    *package*; *machine* and *cpu* are what it emulates. *words* go to the kernel besides those that all get.
    *versions* are the kernels that can be had by name.
    """

    name: str
    debian: str
    program: str
    package: str
    machine: str
    cpu: str
    words: str
    versions: tuple[str, ...]


# QEMU 7.2 miscompiles cmpxchg16b, which kills 6.12 guests at random. Without erms and fsrm the kernel copies and clears
# by words: an emulated `rep movsb` goes byte by byte (writing files is three times as fast without).
# no_timer_check and tsc=reliable: an emulated timer needs no calibration.
X86_64 = GuestArch(
    name="x86_64",
    debian="amd64",
    program="qemu-system-x86_64",
    package="qemu-system-x86",
    machine="pc",
    cpu="max,-cx16,-erms,-fsrm",
    words="console=ttyS0 tsc=reliable no_timer_check",
    versions=("5.10", "6.1", "6.12", "7.2"),
)

# `max` has pointer authentication, which is no single instruction for the emulator: a boot takes 50 s with it, 12
# without.
AARCH64 = GuestArch(
    name="aarch64",
    debian="arm64",
    program="qemu-system-aarch64",
    package="qemu-system-arm",
    machine="virt,gic-version=3",
    cpu="cortex-a72",
    words="console=ttyAMA0",
    versions=("6.1", "6.12", "7.2"),
)

ARCHES = {arch.name: arch for arch in (X86_64, AARCH64)}
_SPELLINGS = {"amd64": "x86_64", "x86-64": "x86_64", "arm64": "aarch64"}


def guest_arch(name: str) -> GuestArch:
    """Return the architecture that *name* means, as the kernel or the distribution spells it; empty is the host's.

    Raises:
        UsageError: there are no guests of it.
    """
    low = name.lower()
    arch = ARCHES.get(_SPELLINGS.get(low, low) or "x86_64")
    if arch is None:
        raise UsageError(f"there is no kernel in a box for {name}", hint="known: x86_64 and arm64 (aarch64)")
    return arch


def kernel_name(kernel: str, arch: str) -> str:
    """Return the name of the kernel of version *kernel* for *arch*: `6.12-arm64`; that of the host's is the version.

    Raises:
        UsageError: there are no guests of *arch*, *kernel* is a file, or its name tells another architecture.
    """
    found, (version, told) = guest_arch(arch), split_name(kernel)
    if arch and version != kernel and told is not found:
        raise UsageError(f"{kernel} is no kernel for {found.debian}", hint=f"leave --arch out, or name {version}")
    if found is X86_64 or told is found:
        return kernel
    if kernel not in found.versions:
        hint = f"known for {found.debian}: {', '.join(found.versions)}"
        raise UsageError(f"there is no kernel {kernel!r} for {found.debian}", hint=hint)
    return f"{kernel}-{found.debian}"


def split_name(name: str) -> tuple[str, GuestArch]:
    """Return version and architecture of a kernel's name."""
    for arch in ARCHES.values():
        version = name.removesuffix(f"-{arch.debian}")
        if version != name and version in arch.versions:
            return version, arch
    return name, X86_64
