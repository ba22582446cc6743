"""Brings a guest up: boots it for an image, or goes on from the image."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kprobes.engines.vm import command
from kprobes.engines.vm.channel import Channel
from kprobes.engines.vm.command import Memory
from kprobes.engines.vm.qemu import Qemu, listen
from kprobes.engines.vm.qmp import Monitor
from kprobes.errors import TargetError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from kprobes.engines.vm.images import Image

BOOT_S = 120.0
RUNNING_S = 20.0
REPEAT_S = 0.1
SEED_BYTES = 64
CONSOLE_S = 2.0


@dataclass(slots=True)
class Booted:
    """A guest that was booted to be saved."""

    qemu: Qemu
    monitor: Monitor
    channel: Channel
    directory: Path

    def __enter__(self) -> Booted:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.channel.close()
        self.monitor.close()
        self.qemu.close()

    def save(self) -> None:
        """Write the state beside the memory. Without it (this QEMU can't) machines boot each time."""
        self.channel.close()
        path = self.directory / "state"
        try:
            with path.open("wb") as stream:
                self.monitor.save(stream.fileno())
        except TargetError:
            path.unlink()
            (self.directory / "memory").unlink()


def boot(image: Image, directory: Path) -> Booted:
    """Boot the kernel of *image* with its memory in *directory*, wait for its agent; a boot that dies is tried twice.

    Raises:
        TargetError: it died twice, or did not come up in time.
    """
    try:
        return _boot_once(image, directory)
    except TargetError:
        return _boot_once(image, directory)


def _boot_once(image: Image, directory: Path) -> Booted:
    monitor = Monitor()
    words = command.machine_command(
        image.kernel, directory / "initramfs", image.shape, Memory(directory / "memory", shared=True)
    )
    qemu = start(words, directory, monitor)
    try:
        monitor.open()
        channel = connect(directory / "port0", qemu, "while it booted")
    except TargetError as error:
        raise explain(qemu, error, "while it booted") from error
    except BaseException:
        qemu.close()
        raise
    return Booted(qemu, monitor, channel, directory)


def restore(image: Image, directory: Path, *, kept: bool = False) -> Qemu:
    """Start a QEMU that goes on from *image*, with its ports in *directory*; it boots where the image has no state.

    Raises:
        TargetError: QEMU could not go on.
    """
    monitor = Monitor()
    saved = image.state.exists()
    memory = image.memory if saved else directory / "memory"
    words = command.machine_command(image.kernel, image.initramfs, image.shape, Memory(memory, shared=False))
    qemu = start([*words, *(command.RESTORE_WORDS if saved else ())], directory, monitor, kept=kept)
    try:
        monitor.open()
        if saved:
            with image.state.open("rb") as stream:
                monitor.restore(stream.fileno())
    except (TargetError, OSError) as error:
        raise explain(qemu, error, "while it was restored") from error
    finally:
        monitor.close()
    return qemu


def start(words: list[str], directory: Path, monitor: Monitor, *, kept: bool = False) -> Qemu:
    """Start QEMU with its channel ports listening in *directory*."""
    listeners = [listen(directory / f"port{number}") for number in range(command.PORTS)]
    ends = [*listeners, monitor.remote]
    try:
        ports = command.port_words([listener.fileno() for listener in listeners])
        return Qemu([*words, *ports, *command.monitor_words(monitor.remote.fileno())], ends, kept=kept)
    finally:
        for end in ends:
            end.close()


def explain(qemu: Qemu, error: Exception, during: str) -> TargetError:
    """End QEMU, and return the error that tells most."""
    died = qemu.wait_ended(CONSOLE_S)
    qemu.close()
    return qemu.death(during) if died else TargetError(str(error))


def connect(path: Path, qemu: Qemu | None, during: str = "") -> Channel:
    """Connect to the port *path* and greet the guest.

    Raises:
        TargetError: the guest died, or did not answer.
    """

    def gone() -> TargetError:
        if qemu is not None and qemu.wait_ended(CONSOLE_S):
            return qemu.death(during)
        return TargetError("the guest is gone")

    channel = Channel(connect_socket(path), gone)
    timeout_s = BOOT_S if qemu is not None else RUNNING_S
    try:
        # The session of who used the port before may swallow the first greeting (`guest.serve`).
        seed = os.urandom(SEED_BYTES)
        channel.call("hello", seed, timeout_s=timeout_s, repeat_s=REPEAT_S, clock=time.time_ns())
    except BaseException:
        channel.close()
        raise
    return channel


def connect_socket(path: Path) -> socket.socket:
    """Return a socket connected to *path*, whose listener must belong to the same user.

    Raises:
        TargetError: nobody listens, or somebody else.
    """
    import struct

    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connected.connect(f"/proc/self/fd/{directory}/{path.name}")
        credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    except OSError as error:
        connected.close()
        raise TargetError(f"the machine at {path} does not answer: {error.strerror}") from error
    finally:
        os.close(directory)
    if struct.unpack("3i", credentials)[1] != os.geteuid():
        connected.close()
        raise TargetError(f"the machine at {path} belongs to another user")
    return connected
