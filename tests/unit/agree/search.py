"""Looks for handlers on which the engines disagree: `python -m agree.search SEED HANDLERS HITS`.

Prints one line of figures as JSON; where engines disagree, the smallest handler that shows it, and ends with status 1.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from back.machine import Outcome
from hypothesis import HealthCheck, Phase, given, reject, seed, settings

from agree.engines import RefusedError, compiled, on_bpf, on_interpreter, on_native
from agree.grammar import handlers
from agree.universe import Handler
from kprobes.compiler.ir.nodes import Handler as Made
from kprobes.errors import VerifierError

# A verifier that follows every path through branches and the loops behind them gives up on some handlers.
TOO_LONG = re.compile("too large|too complex")


class Disagreement(AssertionError):
    """Two engines came to different results; the text has the handler, its hits and what differs."""

    def __init__(self, handler: Handler, engine: str, expected: Outcome, found: Outcome) -> None:
        lines = [f"interpreter and {engine} disagree on {handler!r}"]
        for name in ("counters", "records", "maps"):
            ours, theirs = getattr(expected, name), getattr(found, name)
            if ours != theirs:
                lines += [f"{name} of the interpreter: {ours}", f"{name} of {engine}: {theirs}"]
        super().__init__("\n".join(lines))


def check(handler: Handler, figures: Counter[str]) -> None:
    """Compare all engines that can run *handler* here.

    Raises:
        Disagreement: their results differ.
        RefusedError: the handler computes something that the language refuses.
    """
    made = compiled(handler)
    expected = on_interpreter(made, handler)
    engines = {"native": on_native}
    if made.exit is None and os.geteuid() == 0:
        engines["bpf"] = on_bpf
    for name, run in engines.items():
        try:
            found = run(made, handler)
        except VerifierError as error:
            if not TOO_LONG.search(str(error)):
                raise
            figures["too long for the verifier"] += 1
            continue
        if found != expected:
            raise _smallest(made, handler, (name, run), Disagreement(handler, name, expected, found))
        figures[f"{name} cases"] += len(handler.hits)


def _smallest(
    made: Made, handler: Handler, engine: tuple[str, Callable[[Made, Handler], Outcome]], whole: Disagreement
) -> Disagreement:
    """Return the disagreement on one hit of *handler* where one is enough, else on as few as show it from the first."""
    hits = handler.hits
    for some in [*((hit,) for hit in hits), *(hits[:count] for count in range(2, len(hits)))]:
        fewer = replace(handler, hits=some)
        expected, found = on_interpreter(made, fewer), engine[1](made, fewer)
        if expected != found:
            return Disagreement(fewer, engine[0], expected, found)
    return whole


def search(number: int, count: int, hits: int) -> dict[str, int]:
    """Compare the engines on *count* handlers of the seed *number*; return figures."""
    figures: Counter[str] = Counter()
    seen: set[str] = set()

    @seed(number)
    @settings(
        max_examples=4 * count,  # it repeats itself
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(handlers(hits))
    def agrees(handler: Handler) -> None:
        if not figures["failed"] and (handler.text in seen or len(seen) >= count):
            return
        try:
            check(handler, figures)
        except RefusedError:
            figures["refused"] += 1
            reject()
        except BaseException:
            figures["failed"] += 1
            raise
        seen.add(handler.text)

    agrees()
    return {**figures, "handlers": len(seen)}


if __name__ == "__main__":
    print(json.dumps(search(*map(int, sys.argv[1:4]))))
