"""`kprobes run FILE.kpb`: a script whose handlers were compiled elsewhere."""

from __future__ import annotations

import sys

from kprobes.cli.follow import Job, follow
from kprobes.cli.run import event_writer, report, run_script, shown_by
from kprobes.errors import UsageError
from kprobes.export.bundled import attach_bundle, load_bundle, probes_in
from kprobes.model.probe import BUNDLED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from kprobes.cli.parser import Namespace
    from kprobes.session import Session

# Options that need what a bundle doesn't have: the sources of its handlers.
_REFUSED = {"set": "--set", "record": "--record"}


def run_bundle(arguments: Namespace) -> int:
    """Run the bundle."""
    bundle = load_bundle(arguments.file)
    if arguments.settings:
        for name, value in bundle.settings:
            sys.stdout.write(f"{name}  {value!r}, compiled in\n")
        return 0
    for name, option in _REFUSED.items():
        if getattr(arguments, name):
            raise UsageError(
                f"{option} changes the code, and that of a bundle is compiled already",
                hint="give it to `kprobes export bundle`, or run the script itself",
            )
    names = run_script(bundle.script, bundle.name, {BUNDLED: True}) if bundle.script else {}
    as_json = arguments.format == "json"

    def make_job(session: Session, stream: TextIO) -> Job:
        write = shown_by(names, as_json=as_json) or event_writer(session, stream, as_json=as_json)
        return Job(write, on_end=lambda _session: report(session, names, stream, as_json=as_json))

    return follow(
        arguments, probes_in(bundle), make_job, attach=lambda engine, within: attach_bundle(engine, bundle, within)
    )
