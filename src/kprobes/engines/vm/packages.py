"""Kernels and headers from Debian, by Debian's own client: apt finds, downloads and verifies, with a state of its own.

Nothing of the machine's apt is touched, and nobody needs to be root. The mirror is the machine's; only the suite is
another. Signatures are checked by apt with the machine's keyrings and never turned off.

    apt/<suite>/    lists, cache and configuration for one suite
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kprobes.engines.vm import cache
from kprobes.engines.vm.arches import X86_64, split_name
from kprobes.engines.vm.sources import SECURITY, Source, machine_sources, mirrors
from kprobes.errors import DownloadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kprobes.engines.vm.arches import GuestArch
    from kprobes.engines.vm.kernels import Progress

    Report = Callable[[float], None]

ETC = Path("/etc/apt")
KEYRINGS = Path("/usr/share/keyrings")
DEFAULT_MIRROR = "http://deb.debian.org"
SHOWN_LINES = 6
NO_TOOL = "kernels come as Debian packages; elsewhere give one of your own: --kernel /boot/vmlinuz-..."
OTHER_WAY = "check the network, or give a kernel of your own: --kernel /boot/vmlinuz-..."

# Where each version is the newest one. A suite moves on to a newer kernel: then the next one is tried.
SUITES = {
    "5.10": ("bullseye",),
    "6.1": ("bookworm",),
    "6.12": ("trixie",),
    "7.2": ("forky", "sid"),
}
# What a guest of another architecture than the host's needs besides its kernel, and where it comes from: the oldest
# suite whose Python suits, so that most hosts have the same version.
USERLAND_SUITE = "bookworm"
USERLAND = (
    "python3.11-minimal",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "busybox-static",
    "libc6",
    "libexpat1",
    "libffi8",
    "zlib1g",
)
# Suites that are not released yet: once they have moved on from a version, their newest kernel stands in for it.
MOVING = {"forky", "sid"}
# The packages that a kernel is made of; from 7 on an image's package has no files of its own.
PARTS = re.compile(r"linux-(image|binary|modules)-[0-9]\S*-cloud-[a-z0-9]+")
# What modules are built with: the headers' packages, and the tools that run while building.
HEADER_PARTS = re.compile(r"linux-(headers-[0-9]\S*|kbuild-[0-9]\S*)")


@dataclass(frozen=True, slots=True)
class Package:
    """A package as apt knows it."""

    name: str
    version: str
    size: int


@contextmanager
def unpacked_kernel(name: str, beside: Path, progress: Progress | None = None) -> Iterator[Path]:
    """Download the kernel *name* and give the directory into which it is unpacked, on the file system of *beside*.

    Raises:
        DownloadError: apt could not, or the archive doesn't have it.
    """
    version, arch = split_name(name)
    places = [_place(suite, arch.debian) for suite in SUITES[version]]
    with _unpacked(name, beside, places, lambda work: _download(version, work, progress, arch)) as tree:
        yield tree


@contextmanager
def unpacked_userland(arch: GuestArch, beside: Path, progress: Progress | None = None) -> Iterator[Path]:
    """Download Python and busybox for *arch*, which isn't the host's, and give the directory with them unpacked.

    Raises:
        DownloadError: apt could not.
    """

    place = f"userland-{arch.debian}"

    def download(work: Path) -> list[Path]:
        apt = Apt(USERLAND_SUITE, arch.debian, place)
        if progress is not None:
            progress(f"reading the package lists of {USERLAND_SUITE} for {arch.debian}", 0, 0)
        apt.update()
        return apt.download([apt.package(name) for name in USERLAND], work, progress)

    with _unpacked(place, beside, [place], download) as tree:
        yield tree


@contextmanager
def _unpacked(name: str, beside: Path, places: list[str], download: Callable[[Path], list[Path]]) -> Iterator[Path]:
    work = cache.private_directory(beside / f".download-{name}.{os.getpid()}")
    try:
        unpack(download(work), work / "tree")
        yield work / "tree"
    finally:
        shutil.rmtree(work, ignore_errors=True)
        for place in places:  # 20 MB of lists each
            shutil.rmtree(cache.cache_directory("apt") / place, ignore_errors=True)


@contextmanager
def unpacked_headers(version: str, beside: Path, progress: Progress | None = None) -> Iterator[tuple[Path, Apt]]:
    """Download what modules for the kernel *version* are built with, and give the directory with it unpacked, and apt
    for the suite it comes from.

    Raises:
        DownloadError: apt could not, or the archive doesn't have it any more.
    """
    place = f"headers-{version}"
    apt = Apt(SUITES[version][0], place=place)

    def download(work: Path) -> list[Path]:
        if progress is not None:
            progress(f"reading the package lists of {apt.suite}", 0, 0)
        apt.update()
        return apt.download(apt.header_parts(), work, progress)

    with _unpacked(place, beside, [place], download) as tree:
        yield tree, apt


def unpack(packages: list[Path], tree: Path) -> None:
    """Unpack *packages* into the directory *tree*.

    Raises:
        DownloadError: one is broken.
    """
    for package in packages:
        _tool(["dpkg-deb", "-x", str(package), str(tree)], "unpacking the packages")


def _place(suite: str, arch: str) -> str:
    return suite if arch == X86_64.debian else f"{suite}-{arch}"


def _download(version: str, work: Path, progress: Progress | None, arch: GuestArch = X86_64) -> list[Path]:
    """Download the packages of a kernel into *work*, from the first suite that has the version."""
    failure = DownloadError(f"Debian has no kernel {version}")
    newest: tuple[Apt, list[Package]] | None = None
    for suite in SUITES[version]:
        apt = Apt(suite, arch.debian)
        if progress is not None:
            progress(f"reading the package lists of {suite}", 0, 0)
        try:
            apt.update()
            parts = apt.kernel_parts()
        except DownloadError as error:
            failure = error
            continue
        if any(part.name.startswith(f"linux-image-{version}.") for part in parts):
            return apt.download(parts, work, progress)
        has = ", ".join(part.name for part in parts) or "nothing"
        failure = DownloadError(f"{suite} has no kernel {version} any more (it has {has})", hint=OTHER_WAY)
        newest = newest or (apt, parts)
    if newest is not None and newest[0].suite in MOVING:
        return newest[0].download(newest[1], work, progress)
    raise failure


class Apt:
    """apt with a state of its own for one suite and architecture, in the directory *place* of the cache."""

    def __init__(self, suite: str, arch: str = X86_64.debian, place: str = "") -> None:
        self.suite = suite
        self.arch = arch
        self.directory = cache.cache_directory("apt", place or _place(suite, arch))
        for name in ("lists/partial", "cache/archives/partial"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        (self.directory / "status").touch()
        (self.directory / "sources.list").write_text("".join(f"{line}\n" for line in suite_lines(suite)))
        (self.directory / "apt.conf").write_text(configuration(self.directory, arch))

    def update(self) -> None:
        """Read the suite's lists.

        Raises:
            DownloadError: with apt's own words.
        """
        self._run(["apt-get", "-q", "update"], f"reading the package lists of {self.suite}")
        if not any((self.directory / "lists").glob("*_Packages*")):
            raise DownloadError(f"apt found no packages of {self.suite}")

    def kernel_parts(self) -> list[Package]:
        """Return the packages that the newest cloud kernel of the suite is made of.

        Raises:
            DownloadError: the suite has none.
        """
        return self._parts(f"linux-image-cloud-{self.arch}", PARTS)

    def header_parts(self) -> list[Package]:
        """Return the packages that modules for the newest cloud kernel of the suite are built with.

        Raises:
            DownloadError: the suite has none.
        """
        return self._parts(f"linux-headers-cloud-{self.arch}", HEADER_PARTS)

    def _parts(self, meta: str, pattern: re.Pattern[str]) -> list[Package]:
        """Return what the package *meta* leads to, of the packages whose names fit *pattern*."""
        found: dict[str, Package] = {}
        wanted = [meta]
        while wanted:
            fields = self._show(wanted.pop())
            name = fields["Package"]
            if name != meta:
                found[name] = _package(fields)
            for dependency in re.split(r"[,|]\s*", fields.get("Depends", "")):
                part = dependency.strip().partition(" ")[0]
                if pattern.fullmatch(part) and part not in found:
                    wanted.append(part)
        return list(found.values())

    def package(self, name: str) -> Package:
        """Return the package *name*.

        Raises:
            DownloadError: the suite doesn't have it.
        """
        return _package(self._show(name))

    def download(self, packages: list[Package], work: Path, progress: Progress | None) -> list[Path]:
        """Download packages into *work*; apt compares their checksums with the signed lists.

        Raises:
            DownloadError: with apt's own words.
        """
        total = sum(package.size for package in packages)
        names = [f"{package.name}={package.version}" for package in packages]
        doing = f"downloading {packages[0].name}"

        def report(percent: float) -> None:
            if progress is not None:
                progress(doing, int(total * percent / 100), total)

        self._run(["apt-get", "-q", "download", *names], doing, work, report)
        files = sorted(work.glob("*.deb"))
        if len(files) != len(packages):
            raise DownloadError(f"apt downloaded {len(files)} of {len(packages)} packages")
        report(100)
        return files

    def _show(self, name: str) -> dict[str, str]:
        text = self._run(["apt-cache", "show", "--no-all-versions", name], f"looking for {name} in {self.suite}")
        pairs = (line.partition(": ") for line in text.splitlines() if line[:1].isalpha())
        fields: dict[str, str] = {}
        for key, _, value in pairs:
            fields.setdefault(key, value)
        if "Version" not in fields:
            raise DownloadError(f"{self.suite} has no package {name}")
        return fields

    def _run(self, command: list[str], doing: str, directory: Path | None = None, report: Report | None = None) -> str:
        environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
        settings = ["-c", str(self.directory / "apt.conf")]
        return _tool([command[0], *settings, *command[1:]], doing, directory, (environment, report))


def _package(fields: dict[str, str]) -> Package:
    return Package(fields["Package"], fields["Version"], int(fields["Size"]))


def suite_lines(suite: str, sources: list[Source] | None = None) -> list[str]:
    """Return the sources.list of *suite* on the machine's mirror, with the security archive where the suite has one."""
    main, security = mirrors(machine_sources(ETC) if sources is None else sources)
    main = main or Source(f"{DEFAULT_MIRROR}/debian", suite, ("main",))
    security = security or Source(_sibling(main.uri), suite, ("main",), main.options)
    lines = [Source(main.uri, suite, ("main",), _keyed(main.options)).line()]
    if suite == "bullseye":  # a long-term release's kernels come from its security archive
        lines.append(Source(security.uri, f"{suite}-security", ("main",), _keyed(security.options)).line())
    return lines


def configuration(directory: Path, arch: str = X86_64.debian) -> str:
    """Return an apt.conf that keeps apt away from the machine's own state; it is read last, after the machine's."""
    return f"""\
Dir::State "{directory}";
Dir::State::lists "{directory}/lists";
Dir::State::status "{directory}/status";
Dir::Cache "{directory}/cache";
Dir::Cache::srcpkgcache "";
Dir::Etc::sourcelist "{directory}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Architecture "{arch}";
APT::Architectures "{arch}";
APT::Update::Error-Mode "any";
Acquire::Retries "2";
Acquire::http::Timeout "30";
Acquire::Languages "none";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
APT::Sandbox::User "root";
"""


def _keyed(options: dict[str, str]) -> dict[str, str]:
    """Keep only the keys of the machine's source; where it names none and the usual keyring is there, take that one.

    `trusted=yes` is not taken over: what is booted here is always verified.
    """
    if "signed-by" in options:
        return {"signed-by": options["signed-by"]}
    usual = KEYRINGS / "debian-archive-keyring.gpg"
    return {"signed-by": str(usual)} if usual.exists() else {}


def _sibling(uri: str) -> str:
    """Return where a mirror of the archive has the security archive: beside it."""
    return uri.rstrip("/").rpartition("/")[0] + "/" + SECURITY


def _tool(
    command: list[str],
    doing: str,
    directory: Path | None = None,
    context: tuple[dict[str, str] | None, Report | None] = (None, None),
) -> str:
    """Run a tool of the distribution and return its output. *context*: environment, and who is told apt's percentage.

    Raises:
        DownloadError: it is missing, or failed; with its last words.
    """
    import subprocess
    import tempfile

    environment, report = context
    said = tempfile.TemporaryFile()  # noqa: SIM115  closed below, or with the error
    reading, writing = os.pipe()
    if report is not None:
        command = [command[0], "-o", f"APT::Status-Fd={writing}", *command[1:]]
    try:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            pass_fds=(writing,),
        )
    except FileNotFoundError as error:
        os.close(reading)
        said.close()
        raise DownloadError(f"{doing}: there is no {command[0]}", hint=NO_TOOL) from error
    finally:
        os.close(writing)
    try:
        _follow_progress(reading, report)
        process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    with said:
        said.seek(0)
        output = said.read().decode("utf-8", "replace")
    if process.returncode:
        raise _failed(doing, output)
    return output


def _follow_progress(descriptor: int, report: Report | None) -> None:
    """Read apt's status lines (`dlstatus:1:25.5:Retrieving file 1 of 3`) to their end, and report the percentage."""
    with os.fdopen(descriptor, errors="replace") as status:
        for line in status if report is not None else ():
            kind, _, rest = line.partition(":")
            if kind == "dlstatus" and report is not None:
                report(float(rest.split(":")[1]))


def _failed(doing: str, output: str) -> DownloadError:
    """Return the error for a tool's output, with a hint where its cause is known."""
    lines = [line for line in output.splitlines() if line.startswith(("E:", "W:", "dpkg-deb:", "Err:"))]
    hint = OTHER_WAY
    if "NO_PUBKEY" in output or "not signed" in output or "EXPKEYSIG" in output:
        hint = "the machine's keyring doesn't know this suite's key: apt-get install debian-archive-keyring"
    elif "No space left" in output:
        hint = "the disk is full"
    said = "\n".join(lines[-SHOWN_LINES:] or output.splitlines()[-SHOWN_LINES:])
    return DownloadError(f"{doing} failed; apt says:\n{said}", hint=hint)
