"""Which TCP connections come in, from where. Known from BCC as tcpaccept."""

from kprobes import comm, emit, ipv4, kretprobe, ntohs, pid


@kretprobe("inet_csk_accept")
def accepted():
    sk = yield
    if sk is not None:
        peer = sk.__sk_common
        emit(pid=pid(), comm=comm(), address=ipv4(peer.skc_daddr), port=ntohs(peer.skc_dport), at=peer.skc_num)
