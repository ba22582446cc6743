"""Run the handlers of a script again on what `kprobes run --record FILE` recorded, offline.

examples:
  kprobes run --record slow.rec -p 1234 slower.py
  kprobes replay slow.rec slower.py
  kprobes replay slow.rec changed.py --format json

The script may have changed in the meantime. What its handlers ask for and the recording doesn't have reads as zeros
and is said at the end.
"""

from __future__ import annotations

import sys

from kprobes.cli.follow import MISSED_EXIT, Output
from kprobes.cli.options import add_output_options
from kprobes.cli.run import event_writer, load_script, probes_of, report, shown_by, values_given
from kprobes.planner.settings import settings_of, with_settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.cli.parser import Namespace, Parser
    from kprobes.replay import Replay


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.add_argument("recording", metavar="FILE", help="the recording")
    parser.add_argument("file", metavar="FILE.py", help="the script")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="give a setting of the script a value"
    )
    parser.add_argument("--strict", action="store_true", help="exit with 1 if anything was not recorded or faulty")
    add_output_options(parser)


def run(arguments: Namespace) -> int:
    """Replay the recording."""
    from kprobes.events.recording import load_recording
    from kprobes.replay import Replay

    names = load_script(arguments.file)
    probes = probes_of(names, arguments.file)
    probes = list(with_settings(probes, values_given(arguments.set, settings_of(probes))))
    replay = Replay(probes, load_recording(arguments.recording))
    as_json = arguments.format == "json"
    arguments.command = []
    with Output(arguments) as stream:
        write = shown_by(names, as_json=as_json) or event_writer(replay, stream, as_json=as_json)
        write(replay.events)
        report(replay, names, stream, as_json=as_json)
    clean = _sum_up(replay)
    return MISSED_EXIT if arguments.strict and not clean else 0


def _sum_up(replay: Replay) -> bool:
    from kprobes.render.summary import ProbeSummary, summary
    from kprobes.render.terminal import Terminal

    rows = [ProbeSummary(one.name, one.hits, one.missed, one.lost, one.faults, "replay") for one in replay.stats]
    failed = [one for one in replay.asserts if one.failed]
    for note in (*replay.notes, *(f"failed {one.failed} times: assert {one.assertion.text}" for one in failed)):
        sys.stderr.write(f"note: {note}\n")
    sys.stderr.write(summary(rows, 0.0, Terminal.of(sys.stderr)))
    return not replay.notes and not failed and not any(one.missed or one.lost or one.faults for one in replay.stats)
