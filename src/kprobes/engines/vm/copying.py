"""Files that go into a guest before a command runs there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kprobes.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.engines.vm.channel import Channel

MAX_FILE = 128 << 20
HOME = "/root"
LIBRARIES = "/usr/lib"


def copy_files(channel: Channel, specs: Sequence[str]) -> None:
    """Copy each `FILE` to /root/NAME, or `FILE:PATH` to PATH, with its mode; with a program, the libraries it loads.

    Raises:
        UsageError: a file can't be read, or is too large.
    """
    for spec in specs:
        source, target = split_spec(spec)
        content = _read(source)
        channel.call("put", content, path=target, mode=source.stat().st_mode & 0o777)
        if content.startswith(b"\x7fELF"):
            _copy_libraries(channel, source)


def split_spec(spec: str) -> tuple[Path, str]:
    """Return the file and the place in the guest that `FILE` or `FILE:PATH` means."""
    name, colon, target = spec.rpartition(":")
    if not colon or not target.startswith("/"):
        name, target = spec, ""
    source = Path(name)
    return source, target or f"{HOME}/{source.name}"


def _read(source: Path) -> bytes:
    try:
        size = source.stat().st_size
        if size > MAX_FILE:
            raise UsageError(f"{source} is too large for the guest: {size >> 20} MB, at most {MAX_FILE >> 20}")
        return source.read_bytes()
    except OSError as error:
        raise UsageError(f"{source} can't be copied into the guest: {error.strerror}") from error


def _copy_libraries(channel: Channel, program: Path) -> None:
    """Copy what a program loads, where the guest doesn't have it already."""
    from kprobes.engines.vm.interpreter import shared_libraries

    for name, path in shared_libraries([program]).items():
        target = f"{LIBRARIES}/{Path(name).name}"
        there, _ = channel.call("exists", path=target)
        if not there:
            channel.call("put", path.read_bytes(), path=target, mode=0o755)
