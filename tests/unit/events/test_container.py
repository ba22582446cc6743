"""Claims about which container a cgroup belongs to."""

import pytest

from kprobes.events.container import cgroup_path, container_of

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


def test_the_id_of_a_cgroup_is_the_number_of_its_directory(tmp_path):
    inner = tmp_path / "system.slice" / f"docker-{ID}.scope"
    inner.mkdir(parents=True)
    path = cgroup_path(inner.stat().st_ino, str(tmp_path))
    assert path == f"/system.slice/docker-{ID}.scope"
    assert container_of(path) == ID
    assert cgroup_path(tmp_path.stat().st_ino, str(tmp_path)) == "/"
    assert cgroup_path(1, str(tmp_path)) == ""
