"""The facts of a guest's kernel: files that were written when its image was made."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from kprobes.engines.vm import cache
from kprobes.model import wire
from kprobes.model.features import Features

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


_ASKED = ("events", "version")  # texts that few ask for: they are not in the image
_FLEETING = ("cgroups", "kprobes", "kprobes_enabled")  # they are others each time


class ImageFacts:
    """Facts of an image. A tracepoint's format is asked of a guest by *ask* the first time, and kept."""

    def __init__(self, directory: Path, ask: Callable[[str], bytes | None]) -> None:
        self._directory = directory
        self._ask = ask
        self._features: Features | None = None

    @property
    def features(self) -> Features:
        """Return the answers of the feature probes."""
        if self._features is None:
            self._features = wire.from_bytes((self._directory / "features").read_bytes(), Features)
        return self._features

    def stamp(self) -> str:
        """Return the name of the image: addresses in it never change."""
        return self._directory.name

    def kallsyms(self) -> str:
        """Return the path of the guest's kallsyms."""
        return str(self._directory / "kallsyms")

    def btf(self, module: str = "") -> str | None:
        """Return the path of the raw BTF of vmlinux or of *module*, or None."""
        path = self._directory / f"btf-{module or 'vmlinux'}"
        return str(path) if "/" not in module and path.exists() else None

    def modules(self) -> Sequence[str]:
        """Return the names of the modules with BTF."""
        return tuple(json.loads((self._directory / "modules.json").read_text())["modules"])

    def text(self, what: str) -> str | None:
        """Return `blacklist`, `functions` or `format:CATEGORY/NAME`; None where there is none."""
        if ".." in what:
            return None
        if what in _FLEETING:
            fleeting = self._ask(f"text:{what}")
            return None if fleeting is None else fleeting.decode("utf-8", "surrogateescape")
        path = self._directory / ("text-" + what.replace("/", ","))
        try:
            return path.read_text("utf-8", "surrogateescape")
        except FileNotFoundError:
            pass
        content = self._ask(f"text:{what}") if what in _ASKED or what.startswith("format:") else None
        if content is None:
            return None
        cache.write_whole(path, content)
        return content.decode("utf-8", "surrogateescape")

    def memory(self, address: int, size: int) -> bytes | None:
        """Return *size* bytes of the guest's kernel at *address*, as they are now; None where they can't be read."""
        return self._ask(f"memory:{address}:{size}")
