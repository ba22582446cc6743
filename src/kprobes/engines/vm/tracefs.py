"""tracefs of a guest, as `engines.kernel.tracefs` shows that of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kprobes.engines.vm.channel import Channel


class GuestTracefs:
    """tracefs of the kernel at the other end of *channel*; paths are relative to its root."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def read(self, path: str) -> bytes | None:
        """Return the content of the file *path*, None where it can't be read."""
        there, content = self._channel.call("trace_read", path=path)
        return content if there else None

    def write(self, path: str, content: bytes) -> int:
        """Add *content* to the file *path* by one write; return 0 or the errno of the refusal."""
        code, _ = self._channel.call("trace_write", content, path=path)
        return code if isinstance(code, int) else 0
