"""Waits that don't depend on each other, side by side."""

from __future__ import annotations

from threading import Thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MOST = 32  # threads at a time


def together(waits: Sequence[Callable[[], object]]) -> None:
    """Carry out all *waits*; raises the first error of any, once all have ended."""
    if len(waits) == 1:
        waits[0]()
        return
    errors: list[BaseException] = []
    for first in range(0, len(waits), MOST):
        threads = [Thread(target=_carry_out, args=(one, errors)) for one in waits[first : first + MOST]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]


def _carry_out(wait: Callable[[], object], errors: list[BaseException]) -> None:
    try:
        wait()
    except BaseException as error:  # noqa: BLE001 - raised again by who waits for all
        errors.append(error)
