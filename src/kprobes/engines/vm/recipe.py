"""What the guest's root file system is made from: known without making it, so that an image is found by its name."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kprobes.engines.vm.arches import X86_64, guest_arch
from kprobes.engines.vm.interpreter import Interpreter, running_interpreter
from kprobes.errors import TargetError

if TYPE_CHECKING:
    from kprobes.engines.vm.kernels import KernelImage, Progress
    from kprobes.engines.vm.userland import Userland

LAYOUT = 2
BUILDERS = ("initramfs.py", "interpreter.py", "userland.py", "cpio.py", "recipe.py")

# The parts of the package that go into the guest. The face (`kprobes/__init__.py`) does not: it names the compiler.
SOURCES = (
    "errors.py",
    "frozen.py",
    "model/*.py",
    "engines/__init__.py",
    "engines/atomic.py",
    "engines/port.py",
    "engines/kernel/*.py",
    "engines/vm/__init__.py",
    "engines/vm/frames.py",
    "engines/vm/trouble.py",
    "engines/vm/guest/*.py",
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """The parts: *root* is the directory that holds the package, *sources* are the files of it that the guest has.

    *interpreter* tells the guest's modules, and is its Python unless *userland* is, which a guest of another
    architecture has.
    """

    kernel: KernelImage
    busybox: Path
    interpreter: Interpreter
    root: Path
    sources: tuple[Path, ...]
    userland: Userland | None = None

    def key(self) -> str:
        """Return a name for all of it: size and time of binaries, content of sources, the kernel."""
        digest = hashlib.sha256(f"{LAYOUT} {self.kernel.key} {sys.version}".encode())
        foreign = (self.userland.executable,) if self.userland is not None else ()
        for path in (self.busybox, self.interpreter.executable, *foreign):
            status = path.stat()
            digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
        for path in (*(Path(__file__).with_name(name) for name in BUILDERS), *self.sources):
            digest.update(f"{path.parent.name}/{path.name}\n".encode() + path.read_bytes())
        return digest.hexdigest()[:16]


def recipe_of(kernel: KernelImage, progress: Progress | None = None) -> Recipe:
    """Return the recipe for *kernel* on this machine.

    Raises:
        TargetError: busybox is missing, or the running Python can't be copied.
        DownloadError: those of another architecture can't be had.
    """
    root = Path(__file__).parents[3]
    userland = None
    if kernel.arch != X86_64.name:
        from kprobes.engines.vm.userland import open_userland

        userland = open_userland(guest_arch(kernel.arch), progress)
    busybox = find_busybox() if userland is None else userland.busybox
    return Recipe(kernel, busybox, running_interpreter(), root, tuple(guest_sources(root)), userland)


def guest_sources(root: Path) -> list[Path]:
    """Return the sources of the package, below the directory *root* that holds it, that a guest has."""
    package = root / "kprobes"
    return sorted(path for pattern in SOURCES for path in package.glob(pattern))


def find_busybox() -> Path:
    """Return a statically linked busybox.

    Raises:
        TargetError: there is none; the hint names the package.
    """
    found = shutil.which("busybox") or "/bin/busybox"
    path = Path(os.path.realpath(found))
    if not path.is_file() or not _is_static(path):
        raise TargetError("the guest needs a static busybox", hint="apt-get install busybox-static")
    return path


def _is_static(path: Path) -> bool:
    """Return whether a program names no loader, which would stand in its first page."""
    with path.open("rb") as stream:
        return b"ld-linux" not in stream.read(4096)
