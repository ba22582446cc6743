"""Hits per function; globs welcome.

examples:
  kprobes count 'vfs_*'                        live, until Ctrl-C
  kprobes count --vm 'tcp_*' --duration 5
  kprobes count vfs_read vfs_write -- make     while a command runs
  kprobes count t:sched:sched_switch --format json
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from kprobes.cli.definitions import counted, is_definition, named_stats
from kprobes.cli.follow import Job, follow
from kprobes.cli.options import add_output_options, add_run_options, add_target_options
from kprobes.cli.places import SPELLINGS, probes_of
from kprobes.cli.sampling import picture_job
from kprobes.cli.trace import in_process

if TYPE_CHECKING:
    from kprobes.cli.parser import Namespace, Parser
    from kprobes.model.probe import Probe
    from kprobes.session import ProbeStats, Session


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.add_argument("probes", nargs="+", metavar="PROBE", help="what to probe, see below")
    add_run_options(parser)
    add_target_options(parser)
    add_output_options(parser)
    parser.epilog = f"{SPELLINGS}\n{parser.epilog or ''}"


def run(arguments: Namespace) -> int:
    """Count until told to end."""
    probes: list[Probe] = []
    for text in arguments.probes:
        if is_definition(text):
            probes.append(counted(text))
        else:
            probes += probes_of([text], None, user=in_process(arguments))

    def make_job(session: Session, stream: TextIO) -> Job:
        from kprobes.render.counts import counts

        if arguments.format == "json":
            return Job(lambda _events: None, on_end=lambda _: _write_json(named_stats(session, probes), stream))
        return picture_job(
            stream,
            lambda terminal, live: counts(
                _rows(named_stats(session, probes)), terminal, most=max(5, terminal.height - 6) if live else 0
            ),
        )

    return follow(arguments, probes, make_job)


def _rows(stats: list[ProbeStats]) -> list[tuple[str, int]]:
    return [(one.name, one.hits) for one in stats if one.hits]


def _write_json(stats: list[ProbeStats], stream: TextIO) -> None:
    from kprobes.render.json_lines import JsonLines

    ranked = sorted(stats, key=lambda one: -one.hits)
    JsonLines(stream).write({"probe": one.name, "hits": one.hits, "missed": one.missed} for one in ranked)
