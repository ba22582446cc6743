"""The first process of the guest: sets the system up, then keeps a child at each channel port.

A child waits until a controller connects to its port, serves it, and ends with the connection; everything that it
attached ends with it, and a new child takes its place. The children are forked before anybody connects, when a machine
image is saved, so that a controller finds one that has everything imported.
"""

# No pathlib: an emulated CPU takes 0.1 s to import it.
# ruff: noqa: PTH208

from __future__ import annotations

import fcntl
import os
import select
import signal
import time
from typing import TYPE_CHECKING

from kprobes.engines.vm.guest import system
from kprobes.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable

DEVICES = "/dev"
# The kernel signals each change of a port; looking by oneself now and then is only for the unforeseen.
LOOK_AGAIN_S = 10.0
PORTS_S = 20.0


def main() -> None:
    """Run as process 1; never returns."""
    system.set_up()
    with open("/proc/self/comm", "w", encoding="ascii") as comm:  # noqa: PTH123 - so that traces tell who it is
        comm.write("kprobes-agent")
    # what an attach needs is not looked for while something is probed already
    import kprobes.engines.kernel.kretprobe_events
    import kprobes.engines.kernel.together  # noqa: F401
    from kprobes.engines.kernel.engine import KernelEngine
    from kprobes.engines.vm.guest.serve import Session, serve

    engine = KernelEngine()
    features = engine.facts().features
    ports = open_ports()
    print(f"kprobes: ready on {features.release}, {len(ports)} ports", flush=True)  # noqa: T201
    supervise(ports, lambda port: serve(port, Session(port, engine)))


def open_ports() -> list[int]:
    """Open the channel ports in the order of their numbers; the kernel makes them one by one, some time after boot."""
    wanted = int(os.environ.get("KPROBES_PORTS", "1"))
    deadline = time.monotonic() + PORTS_S
    names: list[str] = []
    while len(names) < wanted and time.monotonic() < deadline:
        names = sorted(name for name in os.listdir(DEVICES) if name.startswith("vport"))
        time.sleep(0.01 if len(names) < wanted else 0)
    if not names:
        raise UnsupportedError(
            "this kernel has no virtio console: CONFIG_VIRTIO_PCI and CONFIG_VIRTIO_CONSOLE are needed"
        )
    return [os.open(f"{DEVICES}/{name}", os.O_RDWR | os.O_CLOEXEC) for name in names]


def supervise(ports: list[int], serve: Callable[[int], None]) -> None:
    """Keep a child at each port, and reap whatever else ends as a child of process 1."""
    children: dict[int, int] = {}
    while True:
        for port in ports:
            if port not in children.values():
                children[_spawn(port, ports, serve)] = port
        ended, _ = os.waitpid(-1, 0)
        children.pop(ended, None)


def wait_connected(port: int) -> None:
    """Wait until the host end of *port* is open.

    Source: drivers/char/virtio_console.c (a port sends SIGIO when its host end changes; POLLHUP while it is closed).
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO})
    fcntl.fcntl(port, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(port, fcntl.F_GETFL)
    fcntl.fcntl(port, fcntl.F_SETFL, flags | os.O_ASYNC)
    poll = select.poll()
    poll.register(port, select.POLLIN)
    while any(events & select.POLLHUP for _, events in poll.poll(0)):
        signal.sigtimedwait({signal.SIGIO}, LOOK_AGAIN_S)
    fcntl.fcntl(port, fcntl.F_SETFL, flags & ~os.O_ASYNC)


def _spawn(port: int, ports: list[int], serve: Callable[[int], None]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        for other in ports:
            if other != port:
                os.close(other)
        serve(port)
    except BaseException:  # noqa: BLE001  the console is the only place to tell it
        from traceback import print_exc

        print_exc()
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
