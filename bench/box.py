"""The kernel in a box: how long until something is probed in it.

The reference for a cold start is QEMU booting the same kernel to the first instruction of a C program that is its init.
"""

from __future__ import annotations

import io
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from bench.figures import Figure
from bench.lab import Lab, in_turns
from kprobes.engines.vm.arches import X86_64
from kprobes.engines.vm.command import kernel_words
from kprobes.engines.vm.cpio import CpioWriter
from kprobes.engines.vm.kernels import DEFAULT_KERNEL, KernelImage, open_kernel

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS = 5
TRACE = ("trace", "--vm", "vfs_read", "-n", "1")


def run(lab: Lab) -> Iterator[Figure]:
    """Yield the times to the first event in a guest: with nothing prepared, from an image, and with the guest up."""
    kernel = open_kernel(DEFAULT_KERNEL)
    places = _own_places(lab)
    command = [lab.command, *TRACE]
    plain = _plain_boot(lab, kernel)

    def cold() -> float:
        return lab.first_output(command, sign=b" vfs_read", environment=places)

    first = cold()
    times = in_turns(ROUNDS, {"cold": cold, "plain": lambda: lab.first_output(plain, sign=b"bench: init")})
    keeper = subprocess.Popen([lab.command, "vm", "--keep"], env={**lab.environment, **places}, stderr=subprocess.PIPE)
    try:
        assert keeper.stderr is not None
        while b"is up" not in (line := keeper.stderr.readline()):
            if not line:
                raise RuntimeError("the guest did not come up")
        up = in_turns(2 * ROUNDS, {"up": cold})
    finally:
        keeper.send_signal(signal.SIGTERM)
        keeper.wait()
    boot = times["plain"].least
    against = "plain boot to init"
    yield Figure("box: cold start to first event", times["cold"].least, boot, against=against, most=5, absolute=True)
    yield Figure("  the same, median", times["cold"].middle, times["plain"].middle, against=against)
    yield Figure("box: the first time with a kernel", first, boot, against=against)
    yield Figure("box: first event, guest already up", up["up"].least, most=0.5, absolute=True)
    yield Figure("  the same, median", up["up"].middle)


def _own_places(lab: Lab) -> dict[str, str]:
    """Return an environment with a cache that has kernels but no images, and where nobody announces machines."""
    cache, runtime = lab.directory / "box-cache", lab.directory / "run"
    kernel = Path(open_kernel(DEFAULT_KERNEL).boot).parent
    shutil.copytree(kernel, cache / "kprobes" / "kernels" / DEFAULT_KERNEL)
    for directory in (cache / "kprobes", cache / "kprobes" / "kernels", runtime):
        directory.mkdir(exist_ok=True)
        directory.chmod(0o700)
    return {"XDG_CACHE_HOME": str(cache), "XDG_RUNTIME_DIR": str(runtime)}


def _plain_boot(lab: Lab, kernel: KernelImage) -> list[str]:
    """Return the command that boots *kernel* with a C program as its init, which says so and powers off."""
    archive = io.BytesIO()
    writer = CpioWriter(archive)
    writer.character_device("dev/console", 5, 1)
    writer.file("init", lab.build("init", "-static").read_bytes(), 0o755)
    writer.close()
    path = lab.directory / "init.cpio"
    path.write_bytes(archive.getvalue())
    words = kernel_words(X86_64).partition(" rdinit=")[0]
    return [
        *(X86_64.program, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-machine", "pc"),
        *("-accel", "tcg,thread=multi", "-cpu", "max,-cx16", "-smp", "2", "-m", "512", "-serial", "stdio"),
        *("-kernel", kernel.boot, "-initrd", str(path), "-append", words),
    ]
