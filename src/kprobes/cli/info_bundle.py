"""`kprobes info FILE.kpb`: what a bundle holds and what it is for. Nothing of it is run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kprobes.export.magic import is_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kprobes.export.bundlefile import Bundle, BundledTarget

# Longer words of a stranger's file are cut.
_LONGEST = 400


def names_bundle(place: str) -> bool:
    """Return whether *place* is the path of a bundle, not a function."""
    return (place.endswith(".kpb") or "/" in place) and Path(place).is_file() and is_bundle(place)


def show_bundle(path: str, *, as_json: bool) -> int:
    """Tell of the bundle in the file *path*.

    Raises:
        FormatError: it is damaged, or of another version.
    """
    from kprobes.export.bundled import load_bundle  # sessions come with it, which functions are told of without

    rows = list(_rows(load_bundle(path)))
    if as_json:
        found: dict[str, str | list[str]] = {}
        for name, value in rows:
            if name in ("probe", "for", "setting"):
                several = found.setdefault(name, [])
                assert isinstance(several, list)
                several.append(value)
            else:
                found[name.replace(" ", "_")] = value
        sys.stdout.write(f"{json.dumps({'bundle': path, **found})}\n")
        return 0
    sys.stdout.write("".join(f"{name:<10} {_printable(value)}\n" for name, value in rows))
    return 0


def _rows(bundle: Bundle) -> Iterator[tuple[str, str]]:
    yield "made by", f"kprobes {bundle.made_by}"
    if bundle.script:
        yield "script", f"{bundle.name}, {len(bundle.script.splitlines())} lines of Python, which a run executes"
    for name, setting in bundle.settings:
        yield "setting", f"{name} = {setting!r}, compiled in"
    for probe in bundle.probes:
        yield "probe", f"{probe.kind} {', '.join(probe.places)}"
    for target in bundle.targets:
        yield "for", _target(target)


def _target(target: BundledTarget) -> str:
    if target.kind == "kernel":
        fixed = ", where it lies as it did (nokaslr)" if target.text else ""
        return f"the kernel {target.release}, build {target.key[:16]}{fixed}"
    files = ", ".join(f"{path} (build {build_id[:16]})" for path, build_id in target.files)
    return f"a process of {target.release} with {files}"


def _printable(text: str) -> str:
    shown = "".join(one if one.isprintable() else "?" for one in text)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}..."
