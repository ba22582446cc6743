"""Claims about which container a cgroup belongs to."""

import pytest

from kprobes.events.container import container_of
from kprobes.events.value import CgroupId, KnownCgroup, with_names

ID = "3f9d" * 16
POD = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1b2c_3d.slice"


@pytest.mark.parametrize(
    ("path", "container"),
    [
        (f"/system.slice/docker-{ID}.scope", ID),
        (f"/docker/{ID}", ID),
        (f"/docker/{ID}/init", ID),
        (f"/machine.slice/libpod-{ID}.scope/container", ID),
        (f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope", ID),
        (f"{POD}/cri-containerd-{ID}.scope", ID),
        (f"{POD}/crio-{ID}.scope", ID),
        (f"/kubepods/besteffort/pod7c1b2f7e-0000-4a6f-9b5e-2d0f3f1c9a11/{ID}", ID),
        (f"/docker/{'a' * 64}/docker/{ID}", ID),
        ("/lxc.payload.web1/system.slice/nginx.service", "web1"),
        ("/lxc/web1", "web1"),
        ("/system.slice/ssh.service", ""),
        ("/user.slice/user-0.slice/session-3.scope", ""),
        (f"/system.slice/docker-{ID[:-1]}.scope", ""),
        ("/", ""),
        ("", ""),
    ],
)
def test_a_path_names_its_container(path, container):
    assert container_of(path) == container


def test_a_known_cgroup_prints_as_its_path_or_its_container():
    assert str(KnownCgroup(7, "/user.slice")) == "/user.slice"
    inside = KnownCgroup(8, f"/system.slice/docker-{ID}.scope")
    assert (str(inside), inside.container, inside + 1) == (ID[:12], ID, 9)
    assert str(KnownCgroup(9, "")) == "9"
    told = with_names({"where": CgroupId(8)}, lambda _: inside)
    assert told == {"where": 8, "where_name": inside.name, "where_container": ID}
