"""Which TCP connections are opened, where to, and how long the call took. Known from BCC as tcpconnect."""

from kprobes import comm, emit, errname, ipv4, kretprobe, now, ntohs, pid


@kretprobe("tcp_v4_connect")
def connected(sk):
    start = now()
    error = yield
    peer = sk.__sk_common
    us = (now() - start) // 1000
    emit(pid=pid(), comm=comm(), address=ipv4(peer.skc_daddr), port=ntohs(peer.skc_dport), error=errname(error), us=us)
