"""The archive is one that the kernel's own rules can read back."""

import io

from kprobes.engines.vm.cpio import CHARACTER_DEVICE, DIRECTORY, REGULAR, SYMLINK, CpioWriter


def members(data):
    """Read an archive by the rules of initramfs: {name: (mode, content, device)} in order."""
    found = {}
    place = 0
    while True:
        assert data[place : place + 6] == b"070701"
        fields = [int(data[place + 6 + 8 * n : place + 14 + 8 * n], 16) for n in range(13)]
        mode, size, device, name_size = fields[1], fields[6], tuple(fields[9:11]), fields[11]
        name_at = place + 110
        name = data[name_at : name_at + name_size - 1].decode()
        content_at = (name_at + name_size + 3) & ~3
        if name == "TRAILER!!!":
            return found
        assert name not in found
        found[name] = (mode, data[content_at : content_at + size], device)
        place = (content_at + size + 3) & ~3


def written(fill):
    stream = io.BytesIO()
    writer = CpioWriter(stream)
    fill(writer)
    writer.close()
    return stream.getvalue()


def test_a_file_keeps_its_content_and_mode():
    data = written(lambda w: w.file("bin/tool", b"\x7fELF odd", 0o755))
    assert members(data)["bin/tool"] == (REGULAR | 0o755, b"\x7fELF odd", (0, 0))


def test_parents_come_before_their_children_and_only_once():
    def fill(writer):
        writer.file("usr/lib/a", b"a")
        writer.file("/usr/lib/b", b"b")
        writer.directory("usr/lib/")

    found = members(written(fill))
    assert list(found) == ["usr", "usr/lib", "usr/lib/a", "usr/lib/b"]
    assert found["usr"][0] == DIRECTORY | 0o755


def test_a_symlink_holds_its_target():
    assert members(written(lambda w: w.symlink("bin/sh", "busybox")))["bin/sh"] == (SYMLINK | 0o777, b"busybox", (0, 0))


def test_a_device_node_needs_no_root():
    found = members(written(lambda w: w.character_device("dev/console", 5, 1)))
    assert found["dev/console"] == (CHARACTER_DEVICE | 0o600, b"", (5, 1))


def test_the_same_members_give_the_same_bytes():
    def fill(writer):
        for name in ("a", "bb", "ccc/d"):
            writer.file(name, name.encode())

    assert written(fill) == written(fill)


def test_the_archive_is_a_whole_number_of_blocks():
    assert len(written(lambda w: w.file("x", b"yyy"))) % 512 == 0
