"""Which signals are sent, by whom and to whom. Known from BCC as killsnoop."""

from kprobes import comm, emit, kprobe, pid


@kprobe("do_send_sig_info")
def signal_sent(sig, info, p):
    emit(sender=pid(), comm=comm(), signal=sig, target=p.tgid, target_comm=p.comm)
