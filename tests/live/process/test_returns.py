"""Return probes: programs that break tracers run as without, and each call is a hit or a missed one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from process_harness import functions_of, redirected
from test_programs import CASES, run_plain, said_counts

from kprobes import Count, Histogram
from kprobes.engines.process.target import Process
from kprobes.model.probe import HandlerSource, Probe
from kprobes.session import attach_to, within_of

pytestmark = pytest.mark.process

TIMED = "def timed():\n    begun = now()\n    yield\n    took.add(now() - begun)\n"
RESULTS = (
    "def results():\n    first = arg(1)\n    result = yield\n    results.add(1)\n    sums.add(result + first - first)\n"
)


def pair(source: str, places: tuple[str, ...], **maps: object) -> Probe:
    from kprobes.model import words

    names = {name: getattr(words, name) for name in dir(words) if not name.startswith("_")}
    return Probe("uretprobe", places, HandlerSource("h", source, names={**names, **maps}))


def both() -> Iterator[object]:
    for name, flags, arguments in CASES:
        yield pytest.param(name, flags, arguments, TIMED, id=f"{name}{''.join(flags)} timed")
        if not flags or name == "exceptions.cc":
            yield pytest.param(name, flags, arguments, RESULTS, id=f"{name}{''.join(flags)} results")


@pytest.mark.parametrize(("name", "flags", "arguments", "source"), [*both()])
def test_with_a_return_probe_on_each_function_hits_and_missed_are_the_calls(
    build: Callable[..., Path],
    tmp_path: Path,
    name: str,
    flags: tuple[str, ...],
    arguments: tuple[str, ...],
    source: str,
) -> None:
    program = build(name, *flags)
    expected, _, code = run_plain(program, arguments)
    took, results, sums = Histogram("took"), Count("results"), Count("sums")
    # All of a static program would be all of libc: there only the program's own functions are probed.
    said = said_counts(expected)
    named = [key for key, _, _ in functions_of(program) if key in said]
    places = tuple(f"{program.name}:{key}" for key in named) if "-static" in flags else (f"{program.name}:*",)
    probe = pair(source, places, took=took, results=results, sums=sums)
    out, err = tmp_path / "out", tmp_path / "err"
    with redirected(out, err):
        engine = Process.spawn([str(program), *arguments]).open()
        with attach_to(engine, probe, within=within_of(engine)) as session:
            assert engine.wait(120)
            assert engine.exit_status == code
            assert out.read_bytes() == expected
            said = said_counts(expected if b"count" in expected else err.read_bytes())
            got = {one.name.rpartition(":")[2]: one.hits + (one.missed or 0) for one in session.stats}
            assert {key: got[key] for key in said} == said
            assert any(one.hits for one in session.stats)
