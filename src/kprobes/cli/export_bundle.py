"""`kprobes export bundle`: a script or probes in, one file with their compiled plans out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kprobes.cli.export import is_definition
from kprobes.cli.options import ANY_KERNEL
from kprobes.cli.outfile import replacing
from kprobes.decorators import definition
from kprobes.errors import UsageError
from kprobes.export.bundlefile import Bundle, bundle_to_bytes
from kprobes.export.bundling import bundled_probes, kernel_target, process_target
from kprobes.model.within import Within
from kprobes.planner.settings import settings_of, values_of, with_settings
from kprobes.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kprobes.cli.parser import Namespace
    from kprobes.engines.targets import Target
    from kprobes.export.bundlefile import BundledTarget
    from kprobes.model.probe import Probe

HERE = "here"


def export_bundle(arguments: Namespace) -> int:
    """Write the bundle."""
    probes, name, script = _asked(arguments)
    targets = tuple(_targets(arguments, probes))
    settings = tuple(sorted(values_of(probes).items()))
    bundle = Bundle(VERSION, name, script, settings, bundled_probes(probes), targets)
    path = arguments.output
    data = bundle_to_bytes(bundle)
    with replacing(path) as stream:
        stream.buffer.write(data)
    fits = ", ".join(one.release if one.kind == "kernel" else "a process" for one in targets)
    sys.stderr.write(f"{path}: {len(data) / 1024:.0f} KiB, for {fits}\n")
    return 0


def _asked(arguments: Namespace) -> tuple[list[Probe], str, str]:
    """Return the probes, and the name and the text of the script, empty where there is none."""
    scripts = [item for item in arguments.items if item.endswith(".py") or ("/" in item and Path(item).is_file())]
    if scripts:
        if len(arguments.items) > 1:
            raise UsageError("a bundle has one script, or probes", hint="put the others into the script")
        from kprobes.cli.run import load_script, probes_of, values_given

        probes = probes_of(load_script(scripts[0]), scripts[0])
        if arguments.set:
            probes = list(with_settings(probes, values_given(arguments.set, settings_of(probes))))
        return probes, Path(scripts[0]).name, Path(scripts[0]).read_text(encoding="utf-8")
    if arguments.set:
        raise UsageError("--set is for scripts: probes have no settings", hint="leave it out")
    user = bool(arguments.command) or arguments.pid is not None
    return [_probe(item, user=user) for item in arguments.items], "", ""


def _probe(item: str, *, user: bool) -> Probe:
    from kprobes.cli.places import probes_of

    if is_definition(item):
        return definition(item)
    (probe,) = probes_of([item], None, user=user)
    return probe


def _targets(arguments: Namespace, probes: list[Probe]) -> Iterator[BundledTarget]:
    if arguments.pid is not None or arguments.command:
        if arguments.targets or arguments.vm or arguments.kernel:
            raise UsageError("a bundle is for kernels or for a process", hint="make one of each")
        from kprobes.engines.targets import process

        if arguments.pid is not None and arguments.command:
            raise UsageError("-p names a running process, -- starts one", hint="give one of them")
        engine = process(arguments.pid or 0, arguments.command).open()
        try:
            yield process_target(probes, Within(getattr(engine, "pid", -1), native=True))
        finally:
            engine.close()
        return
    named = arguments.targets or [arguments.kernel or arguments.vm or HERE]
    for kernel in dict.fromkeys(named):
        engine = _kernel(kernel).open()
        try:
            yield kernel_target(probes, engine)
        finally:
            engine.close()


def _kernel(name: str) -> Target:
    from kprobes.cli.boot import show_progress
    from kprobes.engines.targets import Kernel, Machine

    return Kernel() if name == HERE else Machine("" if name == ANY_KERNEL else name, progress=show_progress)
