"""What handlers do with strings passes the verifier of each kernel, and comes out as in Python."""

from __future__ import annotations

from kprobes import Count, String, comm, emit, kprobe, pid

kinds = Count("kinds", by=String(48))
PATH = "/tmp/kprobes-strings/a.text"


@kprobe("do_sys_openat2")
def opened(dfd, filename):
    name, long = filename.string(64), filename.string(256)
    if "kprobes-strings" in long and comm() == "calls":
        number = int(dfd) & 15
        kinds.add(by=f"{comm()}:{name[-5:]}:{number:#04x}")
        emit(
            size=len(long),
            cut=name[2:10],
            tail=name[-4:],
            byte=name[number],
            some=long[number - 3 : number + 5],
            ends=long.endswith(name[-6:]),
            starts=name.startswith(comm()),
            text=f"{name}|{dfd}|{number:03d}|{pid() > 0}|{long[:-9]}",
            joined=name[:4] + "+" + long,
        )


def expected(dfd: int) -> dict[str, object]:
    number = dfd & 15
    return {
        "size": len(PATH),
        "cut": PATH[2:10],
        "tail": PATH[-4:],
        "byte": PATH[number],
        "some": PATH[number - 3 : number + 5],
        "ends": True,
        "starts": False,
        "text": f"{PATH}|{dfd}|{number:03d}|True|{PATH[:-9]}",
        "joined": f"{PATH[:4]}+{PATH}",
    }


def test_strings_are_those_of_python_in_each_kernel(guest):
    with guest.attach(opened) as session:
        guest.call("openat", PATH, 3)
        session.detach()
        events = [event.fields for event in session.events(0)]
        (key,) = session[kinds]
    at_fdcwd = -100
    assert [dict(event) for event in events] == [expected(at_fdcwd)] * 3
    assert key == f"calls:{PATH[-5:]}:{at_fdcwd & 15:#04x}"
