"""Where machines run, and who may use them."""

import os

import pytest

from kprobes.engines.vm import cache
from kprobes.engines.vm.booting import connect_socket
from kprobes.engines.vm.places import Announcement, Place, PortClaim, announced, sweep
from kprobes.engines.vm.qemu import listen
from kprobes.errors import TargetError

NEWS = Announcement("6.12", "6.12.107", "/facts", 1)


@pytest.fixture(autouse=True)
def runtime(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "kprobes"


def test_a_place_is_private_and_goes_with_its_machine():
    place = Place()
    assert place.directory.stat().st_mode & 0o777 == 0o700
    place.close()
    place.close()
    assert not place.directory.exists()


def test_an_announced_machine_is_found_until_it_ends():
    place = Place()
    assert list(announced()) == []
    place.announce(NEWS)
    assert list(announced()) == [(place.directory, NEWS)]
    place.close()
    assert list(announced()) == []


def test_leftovers_of_killed_owners_are_swept_and_living_ones_stay(runtime):
    place = Place()
    dead = runtime / "vm-1-0"
    dead.mkdir()
    (dead / "machine.json").write_text("{}")
    os.utime(dead, (0, 0))
    sweep(runtime)
    assert not dead.exists()
    assert place.directory.exists()
    place.close()


def test_a_machine_of_a_dead_owner_is_not_offered(runtime):
    cache.run_directory()
    dead = runtime / "vm-1-0"
    dead.mkdir()
    (dead / "lock").touch()
    (dead / "machine.json").write_text('{"kernel":"6.12","release":"","facts":"","pid":1}')
    assert list(announced()) == []


def test_each_client_claims_a_port_of_its_own():
    place = Place()
    listeners = [listen(place.directory / f"port{number}") for number in range(2)]
    first, second = PortClaim(place.directory), PortClaim(place.directory)
    assert {first.path.name, second.path.name} == {"port0", "port1"}
    with pytest.raises(TargetError, match="in use"):
        PortClaim(place.directory)
    first.close()
    assert PortClaim(place.directory).path == first.path
    for listener in listeners:
        listener.close()
    place.close()


def test_a_socket_is_for_its_owner_alone_and_its_path_may_be_long(tmp_path):
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    listener = listen(deep / "port0")
    assert (deep / "port0").stat().st_mode & 0o777 == 0o600
    connect_socket(deep / "port0").close()
    listener.close()
    with pytest.raises(TargetError, match="does not answer"):
        connect_socket(deep / "port0")


def test_a_run_directory_that_others_can_enter_is_refused(runtime):
    runtime.mkdir(mode=0o700)
    runtime.chmod(0o755)
    with pytest.raises(TargetError, match="open to other users"):
        cache.run_directory()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "f"
    cache.write_whole(path, b"old")

    def fail():
        with cache.replacing(path) as descriptor:
            os.write(descriptor, b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_half_made_is_swept(tmp_path):
    for name in (".6.1-c2.77", ".6.12-c2.78", "6.1-c2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "memory").write_bytes(b"x")
    cache.sweep(tmp_path, ".6.1-*")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".6.12-c2.78", "6.1-c2"]
