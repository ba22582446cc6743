"""A kernel to boot: by version from the distribution, or any bzImage. Unpacked once into the cache.

kernels/6.12/           the image and the modules that the channel needs, and `kernel.json`, which names them
kernels/6.12-arm64/     the same for another architecture
kernels/userland-arm64/ Python and busybox for guests of that
kernels/file-<hash>/    the same as first of a bzImage given by its path
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kprobes.engines.vm import cache
from kprobes.engines.vm.arches import AARCH64, X86_64, kernel_name, split_name
from kprobes.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from kprobes.engines.vm.arches import GuestArch

    Progress = Callable[[str, int, int], None]

DEFAULT_KERNEL = "6.12"
KERNEL_NAMES = X86_64.versions
FOREIGN_NAMES = tuple(kernel_name(version, AARCH64.name) for version in AARCH64.versions)
LAYOUT = 1


@dataclass(frozen=True, slots=True)
class KernelImage:
    """What is booted. *boot* is the uncompressed kernel, or the bzImage where it can't be unpacked.

    *modules* is the directory of those that the channel needs, or empty. *key* names the image by its content. *arch*
    is what the kernel calls its architecture.
    """

    name: str
    release: str
    boot: str
    modules: str
    key: str
    build_id: str
    arch: str = X86_64.name


def open_kernel(name: str, progress: Progress | None = None) -> KernelImage:
    """Return the kernel that *name* means: a version such as `6.12`, or the path of a bzImage.

    A version that is not in the cache is downloaded; *progress* is told what is being done, and of how many bytes
    how many are there.

    Raises:
        UsageError: there is no such version or file.
        DownloadError: it could not be had.
        FormatError: the file is no kernel.
    """
    if "/" in name or Path(name).is_file():
        return _open_file(Path(name))
    if name not in KERNEL_NAMES + FOREIGN_NAMES:
        known = ", ".join(KERNEL_NAMES + FOREIGN_NAMES)
        raise UsageError(f"no kernel {name!r}", hint=f"known versions: {known}; or give the path of a bzImage")
    directory = cache.cache_directory("kernels") / name
    return _read(directory) or _fetch(name, directory, progress)


def cached_kernel(name: str) -> KernelImage | None:
    """Return a kernel by version if it is in the cache already."""
    return _read(cache.cache_directory("kernels") / name)


def _read(directory: Path) -> KernelImage | None:
    """Return the kernel in *directory*; None where it is missing, cut short, or of an older layout."""
    try:
        described = json.loads((directory / "kernel.json").read_text())
        size = Path(described["boot"]).stat().st_size
        if described.pop("layout", None) != LAYOUT or described.pop("size", size) != size:
            return None
        return KernelImage(**described)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _fetch(name: str, directory: Path, progress: Progress | None) -> KernelImage:
    from kprobes.engines.vm import packages

    with cache.locked(directory.with_suffix(directory.suffix + ".lock")):
        found = _read(directory)
        if found is not None:
            return found
        cache.sweep(directory.parent, f".download-{name}.*")
        cache.sweep(directory.parent, f".{name}.*")
        with packages.unpacked_kernel(name, directory.parent, progress) as tree:
            image = next(iter(sorted([*tree.glob("boot/vmlinuz-*"), *tree.glob("usr/lib/modules/*/vmlinuz")])))
            modules = next(iter([*tree.glob("lib/modules/*/kernel"), *tree.glob("usr/lib/modules/*/kernel")])).parent
            return _install(name, image, modules, directory)


def _open_file(path: Path) -> KernelImage:
    """Return the kernel of a bzImage; its modules are looked for where distributions put them."""
    import hashlib

    from kprobes.engines.vm import bzimage

    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"the kernel {path} can't be read: {error.strerror}") from error
    release = bzimage.release_of(content)
    digest = hashlib.sha256(content).hexdigest()[:16]
    directory = cache.cache_directory("kernels") / f"file-{digest}"
    found = _read(directory)
    if found is not None:
        return found
    homes = (path.parent, Path("/lib/modules", release), path.parent.parent / "lib/modules" / release)
    modules = next((home for home in homes if (home / "modules.dep").is_file() or (home / "kernel").is_dir()), None)
    with cache.locked(directory.with_suffix(".lock")):
        return _read(directory) or _install(f"file-{digest}", path, modules, directory)


def _install(name: str, image: Path, modules: Path | None, directory: Path) -> KernelImage:
    """Unpack *image* into *directory*, with the modules moved or linked beside it, all at once by a rename."""
    import hashlib
    import shutil

    content = image.read_bytes()
    release, kernel, build_id = _look_into(content, split_name(name)[1])
    staging = cache.private_directory(directory.with_name(f".{directory.name}.{os.getpid()}"))
    (staging / "boot").write_bytes(kernel or content)
    if modules is not None:
        _install_modules(modules, staging / "modules")
    described = KernelImage(
        name=name,
        release=release,
        boot=str(directory / "boot"),
        modules=str(directory / "modules") if modules is not None else "",
        key=hashlib.sha256(content).hexdigest()[:16],
        build_id=build_id,
        arch=split_name(name)[1].name,
    )
    (staging / "kernel.json").write_text(
        json.dumps({"layout": LAYOUT, "size": len(kernel or content), **asdict(described)})
    )
    shutil.rmtree(directory, ignore_errors=True)
    staging.rename(directory)
    return described


def _look_into(content: bytes, arch: GuestArch) -> tuple[str, bytes | None, str]:
    """Return a kernel image's release, what of it is to be booted if not the file itself, and its build-id."""
    from kprobes.engines.vm import bzimage

    if arch is AARCH64:
        from kprobes.engines.vm import arm64image

        return arm64image.release_of(content), None, ""
    release = bzimage.release_of(content)
    kernel = bzimage.unpack_kernel(content)
    if kernel is None or not bzimage.has_pvh_entry(kernel):
        return release, None, ""
    return release, kernel, bzimage.build_id_of(kernel)


def _install_modules(source: Path, target: Path) -> None:
    """Copy the modules that the guest's channel needs."""
    from kprobes.engines.vm import modules

    target.mkdir()
    for number, module in enumerate(modules.needed_modules(source, modules.CHANNEL)):
        (target / f"{number:02}-{modules.name_of(module)}.ko").write_bytes(modules.read_module(module))
