"""A machine image: a guest that was booted once, saved when it was ready, with everything known about its kernel.

    machines/6.12-c2-m512-<key>/
        initramfs           the root file system it was booted with
        memory, state       the guest as it was when its agent was ready; each machine goes on from there
        features, kallsyms, btf-vmlinux, text-*, modules.json    its facts, so that planning needs no guest

Going on takes 0.06 s where booting takes 3. Each machine maps the memory privately: it starts with the same bytes and
shares what it doesn't change. The image is made from a kernel, an initramfs and a QEMU; when one of them is another, so
is the image.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kprobes.engines.vm import cache
from kprobes.engines.vm.arches import guest_arch
from kprobes.engines.vm.command import GuestShape, kernel_words
from kprobes.engines.vm.recipe import Recipe, recipe_of
from kprobes.errors import TargetError

if TYPE_CHECKING:
    from kprobes.engines.vm.channel import Channel
    from kprobes.engines.vm.kernels import KernelImage, Progress

LAYOUT = 1
# Images of one kernel and shape that are kept; each takes some 130 MB.
KEPT = 2
TEXTS = ("blacklist", "functions")


@dataclass(frozen=True, slots=True)
class Image:
    """What a machine starts from."""

    kernel: KernelImage
    shape: GuestShape
    recipe: Recipe
    directory: Path

    @property
    def initramfs(self) -> Path:
        """The file of the root file system."""
        return self.directory / "initramfs"

    @property
    def memory(self) -> Path:
        """The file of the guest's memory."""
        return self.directory / "memory"

    @property
    def state(self) -> Path:
        """The file of everything else; missing where this QEMU can't save a machine, which is then booted each time."""
        return self.directory / "state"


def open_image(kernel: KernelImage, shape: GuestShape, progress: Progress | None = None) -> Image:
    """Return the image of *kernel*, made if need be by booting it once.

    Raises:
        UnsupportedError: there is no QEMU.
        TargetError: the guest did not come up.
    """
    recipe = recipe_of(kernel, progress)
    name = f"{kernel.name}-c{shape.cpus}-m{shape.memory_mb}"
    directory = cache.cache_directory("machines") / f"{name}-{_key(recipe)}"
    image = Image(kernel, shape, recipe, directory)
    if not _complete(image):
        with cache.locked(directory.parent / f"{name}.lock"):
            if not _complete(image):
                _make(image, progress)
                _forget_older(image, name)
    return image


def hold(directory: Path) -> int:
    """Return a descriptor that keeps the image in *directory* from being removed while it is open.

    Raises:
        TargetError: the image is gone already.
    """
    descriptor = _lock(directory, fcntl.LOCK_SH)
    if descriptor is None:
        raise TargetError(f"the machine image {directory} is gone", hint="try again")
    return descriptor


def forget(image: Image) -> None:
    """Remove an image that can't be gone on from."""
    shutil.rmtree(image.directory, ignore_errors=True)


def _complete(image: Image) -> bool:
    return (image.directory / "modules.json").exists()


def _key(recipe: Recipe) -> str:
    arch = guest_arch(recipe.kernel.arch)
    program = shutil.which(arch.program)
    if program is None:
        from kprobes.engines.vm.qemu import missing

        raise missing(arch.program)
    status = Path(program).stat()
    emulator = f"{program} {status.st_size} {status.st_mtime_ns}"
    made_of = f"{LAYOUT} {recipe.key()} {recipe.kernel.boot} {emulator} {arch.machine} {arch.cpu} {kernel_words(arch)}"
    return hashlib.sha256(made_of.encode()).hexdigest()[:16]


def _make(image: Image, progress: Progress | None) -> None:
    """Boot, learn the facts, save. The directory appears whole, by a rename."""
    from kprobes.engines.vm.booting import boot
    from kprobes.engines.vm.initramfs import build

    if progress is not None:
        progress(f"booting {image.kernel.release} once", 0, 0)
    name = f"{image.kernel.name}-c{image.shape.cpus}-m{image.shape.memory_mb}"
    cache.sweep(image.directory.parent, f".{name}-*")
    staging = image.directory.with_name(f".{image.directory.name}.{os.getpid()}")
    cache.private_directory(staging)
    try:
        (staging / "initramfs").write_bytes(build(image.recipe))
        with boot(image, staging) as booted:
            _learn(booted.channel, staging)
            booted.save()
        shutil.rmtree(image.directory, ignore_errors=True)
        staging.rename(image.directory)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _learn(channel: Channel, directory: Path) -> None:
    """Write the facts of the guest's kernel as files."""
    described, features = channel.call("facts")
    (directory / "features").write_bytes(features)
    modules = described["modules"] if isinstance(described, dict) else []
    for what, name in [("kallsyms", "kallsyms"), *((f"text:{text}", f"text-{text}") for text in TEXTS)]:
        _learn_one(channel, what, directory / name)
    for module in ["", *modules]:
        _learn_one(channel, f"btf:{module}", directory / f"btf-{module or 'vmlinux'}")
    (directory / "modules.json").write_text(json.dumps({"modules": modules, "made": time.time()}))


def _learn_one(channel: Channel, what: str, path: Path) -> None:
    there, content = channel.call("fact", what=what)
    if there:
        path.write_bytes(content)


def _forget_older(image: Image, name: str) -> None:
    """Remove images of the same kernel and shape that were made of something else, but for the newest and those in use.

    One is kept beside ours, since two versions of the package may take turns.
    """
    others = [other for other in image.directory.parent.glob(f"{name}-*") if other != image.directory]
    for other in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT - 1 :]:
        held = _lock(other, fcntl.LOCK_EX)
        if held is not None:
            shutil.rmtree(other, ignore_errors=True)
            os.close(held)


def _lock(directory: Path, how: int) -> int | None:
    """Return a descriptor that holds a lock on an image, None where it is gone or others hold it against us."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
