"""Entry and return of many functions by two kprobe.multi links: what the entry kept comes back at its own return."""

from __future__ import annotations

from kprobes import Count, comm, kretprobe

SIZE = 1234
matched = Count("matched")
mixed = Count("mixed")


@kretprobe("vfs_write", "vfs_read", "vfs_open", way="kprobe.multi")
def written():
    done = yield
    if comm() == "calls" and done == SIZE:
        matched.add()


@kretprobe("vfs_write", way="kprobe.multi")
def crossed(file, buf, count):
    wanted = count
    done = yield
    if comm() == "calls" and wanted == SIZE:
        if done == wanted:
            matched.add()
        else:
            mixed.add()


def test_a_pair_by_multi_links_matches_every_call(guest):
    if not guest.machine.facts().features.kprobe_multi:
        assert guest.kernel in ("5.10", "6.1")
        return
    with guest.attach(crossed) as session:
        guest.call("write", SIZE, 800)
        session.detach()
        assert session.stats[0].ways == ("kprobe.multi", "kretprobe.multi")
        assert (session[matched], session[mixed]) == (800, 0)
        assert all(one.clean for one in session.stats)


def test_returns_alone_by_a_multi_link_are_all_seen(guest):
    if not guest.machine.facts().features.kprobe_multi:
        assert guest.kernel in ("5.10", "6.1")
        return
    with guest.attach(written) as session:
        guest.call("write", SIZE, 800)
        session.detach()
        assert session[matched] == 800
