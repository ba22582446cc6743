"""Hits per function; globs welcome.

examples:
  kprobes count 'vfs_*'                        live, until Ctrl-C
  kprobes count --vm 'tcp_*' --duration 5
  kprobes count vfs_read vfs_write -- make     while a command runs
  kprobes count t:sched:sched_switch --format json
  kprobes count 'p:long vfs_read size=%dx' --filter 'size > 4096'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from kprobes.cli.definitions import add_definition_options, check_filter, counted, is_definition, passing
from kprobes.cli.follow import Job, follow
from kprobes.cli.options import add_output_options, add_run_options, add_target_options
from kprobes.cli.places import SPELLINGS, probes_of
from kprobes.cli.sampling import picture_job
from kprobes.cli.trace import in_process
from kprobes.frozen import replace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.cli.parser import Namespace, Parser
    from kprobes.events.record import Event
    from kprobes.model.probe import Probe
    from kprobes.session import ProbeStats, Session


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.add_argument("probes", nargs="+", metavar="PROBE", help="what to probe, see below")
    add_run_options(parser)
    add_target_options(parser)
    add_output_options(parser)
    add_definition_options(parser)
    parser.epilog = f"{SPELLINGS}\n{parser.epilog or ''}"


def run(arguments: Namespace) -> int:
    """Count until told to end."""
    probes: list[Probe] = []
    check_filter(arguments, arguments.probes)
    for text in arguments.probes:
        if is_definition(text):
            probes.append(counted(text, arguments.filter, len(probes)))
        else:
            probes += probes_of([text], None, user=in_process(arguments))

    def make_job(session: Session, stream: TextIO) -> Job:
        from kprobes.render.counts import counts

        seen: dict[int, int] = {}

        def see(events: Sequence[Event]) -> None:
            for event in events:
                seen[event.site_number] = seen.get(event.site_number, 0) + 1

        def stats() -> list[ProbeStats]:
            return passing(session, probes, seen)

        if arguments.format == "json":
            return Job(see, on_end=lambda _: _write_json(stats(), stream))
        job = picture_job(
            stream,
            lambda terminal, live: counts(_rows(stats()), terminal, most=max(5, terminal.height - 6) if live else 0),
        )
        return replace(job, on_events=see)

    return follow(arguments, probes, make_job)


def _rows(stats: list[ProbeStats]) -> list[tuple[str, int]]:
    return [(one.name, one.hits) for one in stats if one.hits]


def _write_json(stats: list[ProbeStats], stream: TextIO) -> None:
    from kprobes.render.json_lines import JsonLines

    ranked = sorted(stats, key=lambda one: -one.hits)
    JsonLines(stream).write({"probe": one.name, "hits": one.hits, "missed": one.missed} for one in ranked)
