"""The headers of the kernels in a box, which modules are built with: unpacked into the cache, never installed.

    headers/6.12/build      what KDIR names; headers/6.12/headers.json says of which release it is

Two things differ from an installed tree. The compiler is the machine's, which may be older than the one that built the
kernel: what it doesn't know is taken out of the configuration. And the tools of the build were made for another
release of Debian: where this machine's C library is too old for them, they run with that release's own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kprobes.engines.vm import cache, packages
from kprobes.engines.vm.kernels import KERNEL_NAMES
from kprobes.errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    from kprobes.engines.vm.kernels import Progress
    from kprobes.engines.vm.packages import Apt

LAYOUT = 1
LIBRARIES = ("libc6", "libelf1t64", "zlib1g", "libzstd1")
TOOLS = {"tools/objtool/objtool": "objtool.real-x86", "scripts/mod/modpost": "modpost.real-lsb-64"}
# Options of the compiler and programs that the machine may not have, and the settings that ask for them.
ALIGNMENT = ("-fmin-function-alignment=16", "CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT")
PAHOLE = ("pahole", "CONFIG_DEBUG_INFO_BTF_MODULES")


@dataclass(frozen=True, slots=True)
class Headers:
    """Headers of the kernel *release*; *build* is the directory for `make KDIR=...`."""

    release: str
    build: str


def open_headers(name: str, progress: Progress | None = None) -> Headers:
    """Return the headers of the kernel *name*, such as `6.12`; they are downloaded where they are not in the cache.

    Raises:
        UsageError: there is no such version.
        DownloadError: they could not be had.
        UnsupportedError: this machine has no compiler.
    """
    if name not in KERNEL_NAMES:
        raise UsageError(f"no headers of a kernel {name!r}", hint=f"known versions: {', '.join(KERNEL_NAMES)}")
    for tool in ("gcc", "make"):
        if shutil.which(tool) is None:
            raise UnsupportedError(f"a module is built with {tool}, which isn't here", hint="apt-get install gcc make")
    directory = cache.cache_directory("headers") / name
    with cache.locked(directory.with_suffix(directory.suffix + ".lock")):
        return _read(directory) or _fetch(name, directory, progress)


def _read(directory: Path) -> Headers | None:
    try:
        described = json.loads((directory / "headers.json").read_text())
        if described.pop("layout", None) != LAYOUT or not Path(described["build"], "Makefile").exists():
            return None
        return Headers(**described)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _fetch(name: str, directory: Path, progress: Progress | None) -> Headers:
    cache.sweep(directory.parent, f".download-headers-{name}.*")
    shutil.rmtree(directory, ignore_errors=True)
    with packages.unpacked_headers(name, directory.parent, progress) as (tree, apt):
        build = next(iter(tree.glob("usr/src/linux-headers-*-cloud-amd64")))
        _leave_out_other_machines(tree)
        _point_inside(build, directory / "tree")
        _adapt_configuration(build)
        _adapt_tools(tree, directory / "tree", apt, progress)
        release = build.name.removeprefix("linux-headers-")
        found = Headers(release, str(directory / "build"))
        staging = cache.private_directory(tree.parent / "finished")
        tree.rename(staging / "tree")
        (staging / "build").symlink_to(f"tree/usr/src/{build.name}")
        described = {"layout": LAYOUT, "release": found.release, "build": found.build}
        (staging / "headers.json").write_text(json.dumps(described))
        staging.rename(directory)
    return found


def _leave_out_other_machines(tree: Path) -> None:
    for directory in tree.glob("usr/src/*-common/arch/*"):
        if directory.is_dir() and directory.name != "x86":
            shutil.rmtree(directory)


def _point_inside(build: Path, home: Path) -> None:
    """Let the tree include its own parts, not what may be installed, and take the machine's compiler."""
    makefile = build / "Makefile"
    makefile.write_text(re.sub(r"(?m)^include /usr/", f"include {home}/usr/", makefile.read_text()))
    variables = build / ".kernelvariables"
    own = "override CC = gcc\noverride CROSS_COMPILE =\n"
    variables.write_text(variables.read_text() + own)


def _adapt_configuration(build: Path) -> None:
    """Take out of the configuration what this machine can't do."""
    missing = []
    trial = ["gcc", ALIGNMENT[0], "-x", "c", "-S", "-o", os.devnull, os.devnull]
    if subprocess.run(trial, check=False, capture_output=True).returncode:
        missing.append(ALIGNMENT[1])
    if shutil.which(PAHOLE[0]) is None:
        missing.append(PAHOLE[1])
    path = build / "include/config/auto.conf"
    kept = [line for line in path.read_text().splitlines() if line.partition("=")[0] not in missing]
    path.write_text("\n".join(kept) + "\n")


def _adapt_tools(tree: Path, home: Path, apt: Apt, progress: Progress | None) -> None:
    """Where the C library of this machine is too old for the build's tools, fetch theirs, and start them with it."""
    kbuild = next(iter(tree.glob("usr/lib/linux-kbuild-*")))
    # A newer tool is a small program that starts the real one, by the machine that is built for.
    reals = {path: path.with_name(real) for path, real in ((kbuild / tool, real) for tool, real in TOOLS.items())}
    tools = {path: real if real.exists() else path for path, real in reals.items()}
    if all(map(_runs, tools.values())):
        return
    work = cache.private_directory(tree.parent / "libraries")
    found = apt.download([apt.package(name) for name in LIBRARIES], work, progress)
    packages.unpack(found, tree / "runtime")
    directory = next(iter(sorted(tree.glob("runtime/**/ld-linux-x86-64.so.2")))).parent.relative_to(tree)
    for path, real in tools.items():
        libraries = home / directory
        if real == path:
            real = path.rename(path.with_name(f"{path.name}.real"))
        program = home / real.relative_to(tree)
        path.unlink(missing_ok=True)
        path.write_text(
            f'#!/bin/sh\nexec "{libraries}/ld-linux-x86-64.so.2" --library-path "{libraries}" "{program}" "$@"\n'
        )
        path.chmod(0o755)


def _runs(program: Path) -> bool:
    """Return whether *program* can be started here: what it says of its use doesn't matter."""
    done = subprocess.run([program, "--help"], check=False, capture_output=True, stdin=subprocess.DEVNULL)
    return b"GLIBC_" not in done.stderr and b"shared libraries" not in done.stderr
