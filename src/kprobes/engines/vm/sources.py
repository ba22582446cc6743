"""The machine's own apt configuration: which mirror it uses, in both formats, and with which keys.

Source: sources.list(5).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ARCHIVE = "debian"
SECURITY = "debian-security"
OPTION = re.compile(r"\[([^\]]*)\]")


@dataclass(frozen=True, slots=True)
class Source:
    """One archive as apt knows it: *options* are those in brackets or the fields of the same meaning."""

    uri: str
    suite: str
    components: tuple[str, ...]
    options: dict[str, str] = field(default_factory=dict)

    def line(self) -> str:
        """Return it as a line of a sources.list."""
        options = " ".join(f"{name}={value}" for name, value in self.options.items())
        return f"deb {f'[{options}] ' if options else ''}{self.uri} {self.suite} {' '.join(self.components)}"


def parse_list(text: str) -> Iterator[Source]:
    """Yield the `deb` lines of a one-line sources file; what is malformed is passed over, as it isn't ours."""
    for raw in text.splitlines():
        line = raw.partition("#")[0].strip()
        options: dict[str, str] = {}
        found = OPTION.search(line)
        if found:
            pairs = (word.partition("=") for word in found[1].split())
            options = {name.rstrip("+-"): value for name, _, value in pairs if value}
            line = line[: found.start()] + line[found.end() :]
        words = line.split()
        if len(words) >= 3 and words[0] == "deb":
            yield Source(words[1], words[2], tuple(words[3:]), options)


def parse_deb822(text: str) -> Iterator[Source]:
    """Yield the sources of a deb822 file (`.sources`), one for each address and suite."""
    for paragraph in re.split(r"\n[ \t]*\n", text):
        fields = _fields(paragraph)
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in {"no", "false", "0"}:
            continue
        options = {}
        if "signed-by" in fields and "BEGIN PGP" not in fields["signed-by"]:
            options["signed-by"] = fields["signed-by"].replace(" ", ",")
        if "trusted" in fields:
            options["trusted"] = fields["trusted"]
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield Source(uri, suite, tuple(fields.get("components", "").split()), options)


def machine_sources(etc: Path) -> list[Source]:
    """Return what apt's configuration below *etc* (`/etc/apt`) lists."""
    found: list[Source] = []
    files = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]
    for path in files:
        try:
            text = path.read_text("utf-8", "replace")
        except OSError:
            continue
        if path.suffix == ".list":
            found += parse_list(text)
        elif path.suffix == ".sources":
            found += parse_deb822(text)
    return found


def mirrors(sources: list[Source]) -> tuple[Source | None, Source | None]:
    """Return the machine's sources of Debian's archive and of its security archive, None where it has none.

    They are known by the last part of their address, which every mirror keeps.
    """
    main = security = None
    for source in sources:
        name = source.uri.rstrip("/").rpartition("/")[2]
        if name == SECURITY or source.suite.endswith("-security"):
            security = security or source
        elif name == ARCHIVE and "main" in source.components:
            main = main or source
    return main, security


def _fields(paragraph: str) -> dict[str, str]:
    """Return the fields of a deb822 paragraph by their names in lower case; continued lines are joined by a blank."""
    fields: dict[str, str] = {}
    name = ""
    for line in paragraph.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if line[0] in " \t":
            if name:
                fields[name] += " " + line.strip()
        else:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()
    return {name: value.strip() for name, value in fields.items()}
