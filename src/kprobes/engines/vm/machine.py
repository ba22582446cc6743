"""The kernel in a box: a `Machine` is a guest of its own, or a connection to one that runs already."""

from __future__ import annotations

import os
import time
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from kprobes.engines.vm import kernels
from kprobes.engines.vm.arches import kernel_name
from kprobes.engines.vm.booting import connect, restore
from kprobes.engines.vm.command import GuestShape
from kprobes.engines.vm.facts import ImageFacts
from kprobes.engines.vm.places import Announcement, Place, PortClaim, announced
from kprobes.errors import KprobesError, TargetError, UsageError
from kprobes.model import wire

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from kprobes.engines.vm.attached import GuestAttached
    from kprobes.engines.vm.channel import Channel
    from kprobes.engines.vm.guestcommand import GuestCommand, Sink
    from kprobes.engines.vm.images import Image
    from kprobes.engines.vm.kernels import Progress
    from kprobes.engines.vm.qemu import Qemu
    from kprobes.engines.vm.tracefs import GuestTracefs
    from kprobes.model.plan import Plan
_CLOCK_TRIES = 3


class Machine:
    """A guest with a kernel of its own, and an engine (`engines.port.Engine`) that probes it; a context manager.
    *arch* is `arm64` for one that isn't of the host's architecture; the kernel may also be called `6.12-arm64`.

    `start` returns while the guest comes up; `facts` needs no guest; whatever else is called waits for it. *progress*
    is told what takes long: (what, bytes done, bytes in all).
    """

    # Whether the guest, and what is changed in it, stays when this machine is closed.
    outlives_us = False

    def __init__(
        self,
        kernel: str = kernels.DEFAULT_KERNEL,
        *,
        arch: str = "",
        cpus: int = 2,
        memory_mb: int = 512,
        progress: Progress | None = None,
    ) -> None:
        if cpus < 1 or memory_mb < 128:
            raise UsageError("a machine needs at least one CPU and 128 MB of memory")
        self.kernel = kernel_name(kernel, arch)
        self._shape = GuestShape(cpus, memory_mb)
        self._progress = progress
        self._place: Place | None = None
        self._claim: PortClaim | None = None
        self._image: Image | None = None
        self._held = -1
        self._qemu: Qemu | None = None
        self._channel: Channel | None = None
        self._facts: ImageFacts | None = None
        self._coming: Thread | None = None
        self._failure: KprobesError | OSError | None = None

    def __enter__(self) -> Machine:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Return the process id of QEMU, 0 where it belongs to somebody else."""
        return self._qemu.pid if self._qemu is not None else 0

    def start(self) -> None:
        """Begin to bring the guest up. Only the first time with a kernel this takes long: it is downloaded and booted.

        Raises:
            KprobesError: the kernel or QEMU can't be had.
        """
        if self._coming is None:
            self._open_image()
            self._place = Place()
            self._coming = Thread(target=self._bring_up, daemon=True, name="kprobes-machine")
            self._coming.start()

    def wait_ready(self) -> None:
        """Wait until the guest answers.

        Raises:
            TargetError: it doesn't.
        """
        self._ready()

    def facts(self) -> ImageFacts:
        """Return where the symbols of the guest's kernel are; the guest need not be up."""
        if self._facts is None:
            image = self._open_image()
            self._facts = ImageFacts(image.directory, self._ask)
        return self._facts

    def tracefs(self) -> GuestTracefs:
        """Return the files about tracing of the guest's kernel."""
        from kprobes.engines.vm.tracefs import GuestTracefs

        return GuestTracefs(self._ready())

    def attach(self, plan: Plan) -> GuestAttached:
        """Carry out *plan* in the guest, all or nothing.

        Raises:
            KprobesError: as the kernel engine raises it there.
        """
        from kprobes.engines.vm.attached import GuestAttached

        channel = self._ready()
        result, _ = channel.call("attach", wire.plan_to_bytes(plan))
        return GuestAttached(channel, stream_of(result))

    def detach_all(self, attached: Sequence[GuestAttached]) -> None:
        """Detach several plans at once: the guest's kernel waits for them side by side.

        Raises:
            KprobesError: one can't be.
        """
        from kprobes.engines.vm.attached import detach_all

        detach_all(attached)

    def run(
        self,
        argv: Sequence[str],
        *,
        copy: Sequence[str] = (),
        sink: Sink | None = None,
        environment: dict[str, str] | None = None,
        **options: object,
    ) -> GuestCommand:
        """Start a command in the guest, after copying files in (`FILE` to /root, or `FILE:PATH`).

        *options*: `input=True` opens its standard input, `terminal=True` gives it a terminal, `directory` is where it
        starts (/root).

        Raises:
            UsageError: there is no such program in the guest, or a file to copy.
        """
        from kprobes.engines.vm.copying import copy_files
        from kprobes.engines.vm.guestcommand import GuestCommand

        channel = self._ready()
        copy_files(channel, copy)
        result, _ = channel.call("run", argv=list(argv), environment=environment or {}, options=options)
        pid = result.get("pid") if isinstance(result, dict) else None
        return GuestCommand(channel, stream_of(result), pid if isinstance(pid, int) else 0, sink)

    def workload(self) -> GuestCommand:
        """Start the small workload for those who have none: files, pipes, processes, sockets, until it is killed."""
        from kprobes.engines.vm.workload import WORKLOAD

        return self.run(["sh", "-c", WORKLOAD], sink=lambda _, __: None)

    def announce(self) -> None:
        """Let other commands of this user use this machine while it lives (`open_machine`)."""
        self._ready()
        image = self._open_image()
        if self._place is not None:
            announcement = Announcement(self.kernel, image.kernel.release, str(image.directory), os.getpid())
            self._place.announce(announcement)

    def close(self) -> None:
        """End the guest, or only the connection where it belongs to somebody else; idempotent."""
        if self._coming is not None:
            self._coming.join()
        if self._channel is not None:
            self._channel.close()
        if self._qemu is not None:
            self._qemu.close()
        for held in (self._claim, self._place):
            if held is not None:
                held.close()
        self._let_go()

    def _open_image(self) -> Image:
        if self._image is None:
            from kprobes.engines.vm.images import open_image

            kernel = kernels.open_kernel(self.kernel, self._progress)
            self._image = open_image(kernel, self._shape, self._progress)
            self._hold(self._image.directory)
        return self._image

    def _hold(self, directory: Path) -> None:
        """Keep the image from being removed while this machine is open."""
        from kprobes.engines.vm.images import hold

        self._let_go()
        self._held = hold(directory)

    def _let_go(self) -> None:
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def _bring_up(self) -> None:
        try:
            try:
                self._restore()
            except TargetError:
                self._give_up_image()
                self._restore()
        except (KprobesError, OSError) as error:
            self._failure = error

    def _restore(self) -> None:
        assert self._place is not None
        self._qemu = restore(self._open_image(), self._place.directory)
        self._claim = PortClaim(self._place.directory)
        self._channel = connect(self._claim.path, self._qemu, "while it came up")

    def _give_up_image(self) -> None:
        """Forget an image that could not be gone on from, and make another."""
        from kprobes.engines.vm.images import forget

        if self._claim is not None:
            self._claim.close()
        if self._qemu is not None:
            self._qemu.close()
        forget(self._open_image())
        self._image = None

    def _ready(self) -> Channel:
        self.start()
        assert self._coming is not None
        self._coming.join()
        if self._failure is not None:
            raise self._failure
        assert self._channel is not None
        return self._channel

    def clock_offset(self) -> int:
        """Return by how many ns the wall clock here is ahead of the guest's monotonic one, give or take a call."""
        channel = self._ready()
        found: list[tuple[int, int]] = []
        for _ in range(_CLOCK_TRIES):
            before = time.monotonic_ns()
            guest, _ = channel.call("clock")
            took = time.monotonic_ns() - before
            found.append((took, time.time_ns() - took // 2 - int(str(guest))))
        return min(found)[1]

    def _ask(self, what: str) -> bytes | None:
        there, content = self._ready().call("fact", what=what)
        return content if there else None


class RunningMachine(Machine):
    """A connection to a machine that another process keeps."""

    outlives_us = True

    def __init__(self, directory: Path, announcement: Announcement) -> None:
        super().__init__(announcement.kernel)
        self._directory = directory
        self._image_directory = Path(announcement.facts)
        self._facts = ImageFacts(self._image_directory, self._ask)

    def start(self) -> None:
        """Connect."""
        if self._coming is None:
            self._hold(self._image_directory)
            self._claim = PortClaim(self._directory)
            self._coming = Thread(target=self._bring_up, daemon=True, name="kprobes-machine")
            self._coming.start()

    def _bring_up(self) -> None:
        assert self._claim is not None
        try:
            self._channel = connect(self._claim.path, None)
        except (KprobesError, OSError) as error:
            self._failure = error


def open_machine(
    kernel: str = kernels.DEFAULT_KERNEL,
    *,
    arch: str = "",
    cpus: int = 2,
    memory_mb: int = 512,
    progress: Progress | None = None,
) -> Machine:
    """Return a machine with *kernel*: one that runs already and was announced, else a new one (not started yet)."""
    name = kernel_name(kernel, arch)
    for directory, announcement in announced():
        if announcement.kernel == name:
            return RunningMachine(directory, announcement)
    return Machine(name, cpus=cpus, memory_mb=memory_mb, progress=progress)


def stream_of(result: object) -> int:
    """Return the number of the stream that a call announced.

    Raises:
        TargetError: the guest announced none.
    """
    number = result.get("stream") if isinstance(result, dict) else None
    if not isinstance(number, int):
        raise TargetError("the guest's answer makes no sense")
    return number
