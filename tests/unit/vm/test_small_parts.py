"""Console, modules, copying, records: the small parts of a machine."""

import os
import struct
from pathlib import Path

import pytest

from kprobes.engines.kernel.ring import EMPTY
from kprobes.engines.vm.attached import GuestAttached
from kprobes.engines.vm.command import GuestShape, Memory, machine_command, port_words
from kprobes.engines.vm.console import Console
from kprobes.engines.vm.copying import split_spec
from kprobes.engines.vm.kernels import KernelImage, open_kernel
from kprobes.engines.vm.modules import dependencies, needed_modules
from kprobes.errors import FormatError, UsageError


def console_of(text):
    reading, writing = os.pipe()
    os.write(writing, text)
    os.close(writing)
    console = Console()
    console.read(reading)
    os.close(reading)
    return console


def test_the_console_shows_its_last_lines_escaped():
    assert console_of(b"one\r\ntwo \x1b[31mred\xff\r\nlast").tail(2) == "two \\x1b[31mred\\xff\nlast"


def test_the_console_ends_with_the_kernels_last_words():
    text = b"before\n[ 2.5] Kernel panic - not syncing: no init\n" + b"[ 2.6]  trace\n" * 40
    assert console_of(text).tail().splitlines() == ["before", "[ 2.5] Kernel panic - not syncing: no init"]


def test_the_console_is_bounded():
    console = console_of(b"x" * 5000 + b"\n" + b"line\n" * 3000)
    assert len(console.lines) <= 200


def test_dependencies_are_read_from_the_module():
    assert dependencies(b"\0license=GPL\0depends=virtio_ring,virtio-pci\0name=x\0") == ("virtio_ring", "virtio_pci")
    assert dependencies(b"\0depends=\0") == ()
    assert dependencies(b"nothing") == ()


def test_modules_are_loaded_after_those_they_need(tmp_path):
    home = tmp_path / "kernel" / "drivers"
    home.mkdir(parents=True)
    for name, needs in {"top": "mid,low", "mid": "low", "low": "builtin"}.items():
        (home / f"{name}.ko").write_bytes(b"\0depends=" + needs.encode() + b"\0")
    assert [path.name for path in needed_modules(tmp_path, ("top", "absent"))] == ["low.ko", "mid.ko", "top.ko"]


@pytest.mark.parametrize(
    ("spec", "source", "target"),
    [
        ("a/tool", "a/tool", "/root/tool"),
        ("a/tool:/bin/x", "a/tool", "/bin/x"),
        ("odd:name", "odd:name", "/root/odd:name"),
    ],
)
def test_a_copy_is_a_file_or_a_file_and_a_place(spec, source, target):
    assert split_spec(spec) == (Path(source), target)


def test_an_unknown_version_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match=r"no kernel '6\.99'") as caught:
        open_kernel("6.99")
    assert "6.12" in caught.value.hint


def test_a_kernel_that_is_no_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match="can't be read"):
        open_kernel(str(tmp_path / "vmlinuz"))
    (tmp_path / "vmlinuz").write_bytes(b"no kernel at all" * 100)
    with pytest.raises(FormatError, match="not a bzImage"):
        open_kernel(str(tmp_path / "vmlinuz"))


def test_the_guest_has_no_network_and_no_disk():
    kernel = KernelImage("6.12", "6.12.1", "/k", "", "key", "id")
    words = machine_command(kernel, Path("/i"), GuestShape(3, 700), Memory(Path("/a,b"), shared=False))
    assert "-nodefaults" in words
    assert words[words.index("-smp") + 1] == "3"
    assert any("mem-path=/a,,b,share=off" in word for word in words)
    assert not [word for word in [*words, *port_words([4, 5])] if "netdev" in word or "drive" in word]


class FakeChannel:
    """Hands out what a guest would have pushed."""

    def __init__(self, *messages):
        self.messages = list(messages)
        self.calls = []

    def stream(self, _number):
        return self

    def take(self, _timeout):
        return self.messages.pop(0) if self.messages else None

    def call(self, name, **_arguments):
        self.calls.append(name)
        return None, b""


def test_uniform_records_are_cut_at_their_stride():
    data = b"hhhhhhhhABCD0000" + b"hhhhhhhhEFGH0000"
    attached = GuestAttached(FakeChannel(({"stride": 16, "length": 4}, data)), 1)
    assert attached.poll(1) == [b"ABCD", b"EFGH"]


def test_mixed_records_come_back_one_by_one():
    data = struct.pack("<II8sII8s", 1, 0, b"a", 3, 0, b"bcd")
    span = GuestAttached(FakeChannel(({}, data)), 1).poll_raw(1)
    assert span.records() == [b"a", b"bcd"]
    assert span.data == data  # for who decodes it as it lay in the ring
    assert len(span) == 2


def test_polling_without_waiting_asks_the_guest_once():
    channel = FakeChannel()
    assert GuestAttached(channel, 1).poll_raw(0) == EMPTY
    assert channel.calls == ["sync"]


@pytest.mark.parametrize(
    ("head", "blob"),
    [
        ({"stride": 16, "length": 4}, b"x" * 17),
        ({"stride": 16, "length": 99}, b"x" * 16),
        ({"stride": 0, "length": 0}, b"x" * 16),
        ({"stride": -16, "length": 4}, b"x" * 16),
        ({"stride": "16", "length": 4}, b"x" * 16),
        ({}, b"\xff\xff\xff\xff"),
        ({}, struct.pack("<IIQ", 9, 0, 0)),
    ],
)
def test_records_that_lie_about_their_length_are_refused(head, blob):
    with pytest.raises(FormatError):
        GuestAttached(FakeChannel((head, blob)), 1).poll(1)


def test_closing_an_attached_plan_twice_detaches_once():
    channel = FakeChannel()
    attached = GuestAttached(channel, 1)
    attached.close()
    attached.close()
    assert channel.calls == ["close_link"]
