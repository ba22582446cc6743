"""The first process of the guest: sets the system up, then serves each channel port by a child of its own.

The host end of a port is a socket. The kernel sends SIGIO when it is connected or closed; a child is forked for a
connected port and ends with the connection, and everything that it attached ends with it.
"""

from __future__ import annotations

import _signal as signals
import fcntl
import os
import select

from kprobes.engines.vm.guest import system

PORTS = "/dev"
CHILD_SIGNALS = {signals.SIGIO, signals.SIGCHLD}
# A signal may come between looking and waiting, so the wait ends by itself now and then.
LOOK_AGAIN_S = 1.0


def main() -> None:
    """Run as process 1; never returns."""
    signals.pthread_sigmask(signals.SIG_BLOCK, CHILD_SIGNALS)
    signals.signal(signals.SIGCHLD, signals.SIG_DFL)
    system.set_up()
    from kprobes.engines.vm.guest import serve

    ports = open_ports()
    uptime = os.times().elapsed
    print(f"kprobes: {len(ports)} ports, up {uptime:.2f} s", flush=True)  # noqa: T201
    supervise(ports, serve.serve)


def open_ports() -> list[int]:
    """Open the channel ports; each sends SIGIO to this process."""
    names = sorted(name for name in os.listdir(PORTS) if name.startswith("vport"))
    ports = []
    for name in names:
        port = os.open(f"{PORTS}/{name}", os.O_RDWR | os.O_CLOEXEC)
        fcntl.fcntl(port, fcntl.F_SETOWN, os.getpid())
        ports.append(port)
    return ports


def supervise(ports: list[int], serve: object) -> None:
    """Fork a child for every connected port, and reap."""
    children: dict[int, int] = {}
    while True:
        for port in ports:
            if port not in children.values() and _connected(port):
                _notify(port, wanted=False)
                children[_spawn(port, ports, serve)] = port
        signals.sigtimedwait(CHILD_SIGNALS, LOOK_AGAIN_S)
        _reap(children)


def _connected(port: int) -> bool:
    """Return whether the host end is open. Asking also turns the signals on, so that no change is missed."""
    _notify(port, wanted=True)
    poll = select.poll()
    poll.register(port, select.POLLIN)
    return not any(events & select.POLLHUP for _, events in poll.poll(0))


def _notify(port: int, *, wanted: bool) -> None:
    flags = fcntl.fcntl(port, fcntl.F_GETFL) & ~os.O_ASYNC
    fcntl.fcntl(port, fcntl.F_SETFL, flags | (os.O_ASYNC if wanted else 0))


def _spawn(port: int, ports: list[int], serve: object) -> int:
    child = os.fork()
    if child:
        return child
    try:
        for other in ports:
            if other != port:
                os.close(other)
        signals.pthread_sigmask(signals.SIG_UNBLOCK, CHILD_SIGNALS)
        serve(port)  # type: ignore[operator]
    except BaseException:  # noqa: BLE001
        from traceback import print_exc

        print_exc()
    finally:
        os._exit(0)


def _reap(children: dict[int, int]) -> None:
    """Collect ended children, orphans included."""
    while True:
        try:
            ended, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not ended:
            return
        children.pop(ended, None)


if __name__ == "__main__":
    main()
