"""Kernels in the cache are whole, or not there."""

import json
from pathlib import Path

import pytest
from test_bzimage import KERNEL, bzimage, gzipped

from kprobes.engines.vm.kernels import cached_kernel, open_kernel


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kprobes" / "kernels"


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "vmlinuz"
    path.write_bytes(bzimage(gzipped()))
    (tmp_path / "kernel").mkdir()
    for name, needs in {"virtio_pci": "virtio_ring", "virtio_ring": "", "virtio_console": "virtio_ring"}.items():
        (tmp_path / "kernel" / f"{name}.ko").write_bytes(b"\0depends=" + needs.encode() + b"\0")
    return path


def test_a_kernel_is_unpacked_once_with_the_modules_of_the_channel(image, home):
    kernel = open_kernel(str(image))
    assert Path(kernel.boot).read_bytes() == KERNEL
    assert kernel.release == "6.12.107+deb13-cloud-amd64"
    names = sorted(path.name for path in (home / kernel.name / "modules").iterdir())
    assert names == ["00-virtio_ring.ko", "01-virtio_pci.ko", "02-virtio_console.ko"]
    image.with_name("kernel").rename(image.with_name("gone"))
    assert open_kernel(str(image)) == kernel


def test_a_kernel_that_was_cut_short_in_the_cache_is_unpacked_again(image):
    kernel = open_kernel(str(image))
    Path(kernel.boot).write_bytes(KERNEL[:10])
    assert open_kernel(str(image)) == kernel
    assert Path(kernel.boot).read_bytes() == KERNEL


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"layout": 1}', '{"layout": 0, "boot": "/bin/sh"}'])
def test_a_description_that_makes_no_sense_is_no_kernel(home, text):
    (home / "6.12").mkdir(parents=True)
    (home / "6.12" / "kernel.json").write_text(text)
    assert cached_kernel("6.12") is None


def test_a_kernel_without_a_build_id_is_named_by_its_content(image):
    kernel = open_kernel(str(image))
    assert kernel.name == f"file-{kernel.key}"
    assert json.loads((image.parent / "cache/kprobes/kernels" / kernel.name / "kernel.json").read_text())["size"]
