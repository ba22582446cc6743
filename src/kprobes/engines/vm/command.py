"""QEMU's command line.

Measured on the development machine with Debian's 6.12 (plain emulation, seconds to init): bzImage 4.1, uncompressed
kernel 2.9, and without the two slowest initcalls 2.2. Without ACPI it would be 1.9, but then there is only one CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kprobes.engines.vm.arches import guest_arch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kprobes.engines.vm.arches import GuestArch
    from kprobes.engines.vm.kernels import KernelImage

PORTS = 8

# One thread takes turns with the CPUs. With a thread for each, QEMU before 8.1 may keep a translation of code that
# another CPU rewrites at that moment: an int3 that the kernel has long replaced is met, and the guest dies of it.
TCG = "tcg,thread=single"

# nokaslr: the addresses of symbols are the same each time and can be kept. The initcalls load the certificates that
# sign modules (the channel's go without), and test a random number generator for 0.16 s and a key derivation for
# longer. rcu_expedited: each link that is closed waits for RCU several times, and an emulated CPU takes its time: 73
# kprobes came off in 20 s.
_WORDS = (
    "quiet loglevel=4 nokaslr mitigations=off init_on_alloc=0 oops=panic panic=-1 "
    "cryptomgr.notests audit=0 nowatchdog random.trust_cpu=on rcupdate.rcu_expedited=1 "
    "initcall_blacklist=load_system_certificate_list,jent_mod_init,crypto_kdf108_init "
    f"KPROBES_PORTS={PORTS} "
    "rdinit=/usr/bin/python3 LD_LIBRARY_PATH=/usr/lib -- -I -S -B /usr/lib/start.py"
)


def kernel_words(arch: GuestArch) -> str:
    """Return the kernel's command line."""
    return f"{arch.words} {_WORDS}"


@dataclass(frozen=True, slots=True)
class GuestShape:
    """What the guest gets."""

    cpus: int = 2
    memory_mb: int = 512


@dataclass(frozen=True, slots=True)
class Memory:
    """The file that is the guest's memory. *shared*: what the guest writes goes there; otherwise it stays private."""

    path: Path
    shared: bool


def machine_command(kernel: KernelImage, initramfs: Path, shape: GuestShape, memory: Memory) -> list[str]:
    """Return the command line that boots *kernel*: no network, no disk, no display. The console is standard output.

    A machine that is to be restored needs the same words as the one that was saved, apart from *memory.shared*.
    """
    arch = guest_arch(kernel.arch)
    backing = f"memory-backend-file,id=memory,size={shape.memory_mb}M,mem-path={_escaped(memory.path)}"
    return [
        arch.program,
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-object", f"{backing},share={'on' if memory.shared else 'off'}"),
        *("-machine", f"{arch.machine},memory-backend=memory", "-accel", TCG),
        *("-cpu", arch.cpu, "-smp", str(shape.cpus), "-m", str(shape.memory_mb)),
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
        *("-kernel", kernel.boot, "-initrd", str(initramfs), "-append", kernel_words(arch)),
    ]


def port_words(ports: Sequence[int]) -> list[str]:
    """Return the words that make one channel port of each listening descriptor."""
    words = ["-device", f"virtio-serial-pci,max_ports={len(ports) + 1}"]
    for number, descriptor in enumerate(ports):
        words += ["-chardev", f"socket,id=port{number},fd={descriptor},server=on,wait=off"]
        words += ["-device", f"virtserialport,chardev=port{number},name=kprobes.{number},nr={number + 1}"]
    return words


def monitor_words(descriptor: int) -> list[str]:
    """Return the words that make a monitor (QMP) of a connected socket."""
    return ["-chardev", f"socket,id=monitor,fd={descriptor}", "-mon", "chardev=monitor,mode=control"]


RESTORE_WORDS = ("-incoming", "defer")


def _escaped(path: Path) -> str:
    """Return a path for an option's list of values, in which a comma is doubled."""
    return str(path).replace(",", ",,")
