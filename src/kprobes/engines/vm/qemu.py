"""One QEMU process: its command line, its sockets, its console, its end.

Measured on the development machine with Debian's 6.12 (plain emulation, seconds to init): bzImage 4.1, uncompressed
kernel 2.9, without ACPI 2.6, and without the two slowest initcalls 1.9.
"""

from __future__ import annotations

import os
import signal
import socket
from collections import deque
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import TYPE_CHECKING

from kprobes.errors import TargetError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from kprobes.engines.vm.kernels import KernelImage

PROGRAM = "qemu-system-x86_64"
PORTS = 8
CONSOLE_LINES = 200
LONGEST_LINE = 500
SHOWN_LINES = 12
PR_SET_PDEATHSIG = 1

# nokaslr: the addresses of symbols are the same each time and can be kept. no_timer_check and tsc=reliable: an emulated
# timer needs no calibration. The two initcalls load the certificates that sign modules (the channel's modules are loaded
# without) and test a random number generator for 0.16 s.
KERNEL_WORDS = (
    "console=ttyS0 quiet loglevel=4 nokaslr mitigations=off oops=panic panic=-1 acpi=off tsc=reliable no_timer_check "
    "cryptomgr.notests audit=0 nowatchdog random.trust_cpu=on "
    "initcall_blacklist=load_system_certificate_list,jent_mod_init "
    "rdinit=/usr/bin/python3 LD_LIBRARY_PATH=/usr/lib -- -I -S -B /usr/lib/start.py"
)


@dataclass(frozen=True, slots=True)
class GuestShape:
    """What the guest gets."""

    cpus: int = 2
    memory_mb: int = 512


@dataclass(slots=True)
class Console:
    """The last lines of the guest's console."""

    lines: deque[bytes] = field(default_factory=lambda: deque(maxlen=CONSOLE_LINES))

    def read(self, descriptor: int) -> None:
        """Read *descriptor* to its end."""
        rest = b""
        while data := os.read(descriptor, 1 << 14):
            *whole, rest = (rest + data).split(b"\n")
            self.lines.extend(line.rstrip(b"\r")[:LONGEST_LINE] for line in whole)
            rest = rest[:LONGEST_LINE]
        if rest:
            self.lines.append(rest)

    def tail(self, count: int = SHOWN_LINES) -> str:
        """Return the last lines as text that is safe on a terminal."""
        shown = [line.decode("utf-8", "backslashreplace") for line in list(self.lines)[-count:]]
        return "\n".join("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line) for line in shown)


class Qemu:
    """A running QEMU; `close` ends it.

    Its channel ports are sockets in *directory*, which listen before it starts: whoever connects early waits. The process
    dies with ours (unless it is *kept*), also when ours is killed.
    """

    def __init__(self, command: list[str], listeners: Sequence[socket.socket], *, kept: bool = False) -> None:
        self.console = Console()
        self._spawned = Event()
        self._ended = Event()
        self._failure: OSError | None = None
        self._status = 0
        self.pid = 0
        descriptors = tuple(listener.fileno() for listener in listeners)
        # The thread that spawns stays until QEMU has ended: the kernel ties "dies with its parent" to it.
        self._keeper = Thread(target=self._keep, args=(command, descriptors, kept), daemon=True)
        self._keeper.start()
        self._spawned.wait()
        if self._failure is not None:
            raise _not_started(self._failure)

    @property
    def ended(self) -> bool:
        """Return whether QEMU is gone."""
        return self._ended.is_set()

    def wait_ended(self, timeout_s: float) -> bool:
        """Wait until QEMU has ended and its console is read; return whether it has."""
        return self._ended.wait(timeout_s)

    def death(self, during: str) -> TargetError:
        """Return the error that tells of QEMU's end *during* something, with the last lines of the console."""
        what = f"the guest died {during}"
        if self._status:
            what += f" (QEMU exit status {self._status})"
        return TargetError(f"{what}; the last lines of its console:\n{self.console.tail()}")

    def close(self) -> None:
        """End the process; idempotent."""
        if not self.ended:
            try:
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self._ended.wait(10)

    def _keep(self, command: list[str], descriptors: tuple[int, ...], kept: bool) -> None:
        import subprocess

        before = None if kept else _die_with_parent()
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=descriptors,
                start_new_session=True,
                preexec_fn=before,  # noqa: PLW1509  the function makes one system call
            )
        except OSError as error:
            self._failure = error
            self._spawned.set()
            return
        self.pid = process.pid
        self._spawned.set()
        assert process.stdout is not None
        self.console.read(process.stdout.fileno())
        process.stdout.close()
        self._status = process.wait()
        self._ended.set()


def listen(path: Path) -> socket.socket:
    """Return a listening socket at *path*, for its owner alone.

    A path may be longer than a socket address can be, so it is bound through the directory's descriptor.
    """
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        listener.bind(f"/proc/self/fd/{directory}/{path.name}")
        path.chmod(0o600)
        listener.listen(4)
    except OSError:
        listener.close()
        raise
    finally:
        os.close(directory)
    return listener


def boot_command(kernel: KernelImage, initramfs: Path, shape: GuestShape, ports: Sequence[int]) -> list[str]:
    """Return the command line that boots *kernel*; *ports* are the descriptors of the listening sockets."""
    return [
        *machine_words(shape),
        *("-kernel", kernel.boot, "-initrd", str(initramfs), "-append", KERNEL_WORDS),
        *port_words(ports),
    ]


def machine_words(shape: GuestShape) -> list[str]:
    """Return the part of the command line that describes the machine: no network, no disk, no display."""
    return [
        PROGRAM,
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-machine", "pc,acpi=off", "-accel", "tcg,thread=multi"),
        # QEMU 7.2 miscompiles cmpxchg16b, which kills 6.12 guests at random.
        *("-cpu", "max,-cx16", "-smp", str(shape.cpus), "-m", str(shape.memory_mb)),
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
    ]


def port_words(ports: Sequence[int]) -> list[str]:
    """Return the part that makes one channel port of each listening descriptor."""
    words = ["-device", f"virtio-serial-pci,max_ports={len(ports) + 1}"]
    for number, descriptor in enumerate(ports):
        words += ["-chardev", f"socket,id=port{number},fd={descriptor},server=on,wait=off"]
        words += ["-device", f"virtserialport,chardev=port{number},name=kprobes.{number},nr={number + 1}"]
    return words


def _die_with_parent() -> Callable[[], None]:
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) and None


def _not_started(error: OSError) -> UnsupportedError:
    if isinstance(error, FileNotFoundError):
        return UnsupportedError(f"there is no {PROGRAM}", hint="apt-get install qemu-system-x86")
    return UnsupportedError(f"{PROGRAM} can't be started: {error.strerror}")
