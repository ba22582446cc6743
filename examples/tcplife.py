"""How long TCP connections last, and how much goes through them. Known from BCC as tcplife."""

from kprobes import HashMap, container_of, emit, kprobe, now, ntohs

ESTABLISHED, CLOSED = 1, 7
born = HashMap("born", key=int, value=int)


@kprobe("tcp_set_state")
def changed(sk, state):
    if state == ESTABLISHED:
        born[sk] = now()
    elif state == CLOSED:
        since = born.pop(sk, 0)
        if since:
            tcp = container_of(sk, "struct tcp_sock", "inet_conn.icsk_inet.sk")
            emit(
                port=sk.__sk_common.skc_num,
                peer=ntohs(sk.__sk_common.skc_dport),
                sent=tcp.bytes_acked,
                received=tcp.bytes_received,
                ms=(now() - since) // 1_000_000,
            )
