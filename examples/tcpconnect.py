"""Which TCP connections are opened, where to, and how long the call took. Known from BCC as tcpconnect."""

import socket

from kprobes import comm, emit, kretprobe, now, pid


@kretprobe("tcp_v4_connect")
def connected(sk):
    start = now()
    error = yield
    common = sk.__sk_common
    emit(pid=pid(), comm=comm(), address=common.skc_daddr, port=common.skc_dport, error=error, ns=now() - start)


def show(event):
    """Print one event; this part is ordinary Python and runs here, not in the kernel."""
    address = socket.inet_ntoa(event.address.to_bytes(4, "little"))
    port = socket.ntohs(event.port)
    print(f"{event.pid:>7} {event.comm:<16} {address}:{port} -> {event.error} in {event.ns // 1000} us")
