"""Which TCP connections come in, from where. Known from BCC as tcpaccept."""

import socket

from kprobes import comm, emit, kretprobe, ntohs, pid


@kretprobe("inet_csk_accept")
def accepted():
    sk = yield
    if sk is not None:
        common = sk.__sk_common
        emit(pid=pid(), comm=comm(), address=common.skc_daddr, port=ntohs(common.skc_dport), at=common.skc_num)


def show(event):
    """Print one event; this part is ordinary Python and runs here, not in the kernel."""
    address = socket.inet_ntoa(event.address.to_bytes(4, "little"))
    print(f"{event.pid:>7} {event.comm:<16} {address}:{event.port} at port {event.at}")
