"""The process that the process engine probes: a running one, or the user's command, started with the probes in
place."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Self

from kprobes.model.within import Within

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from kprobes.engines.process.engine import ProcessEngine


class NativeWorkload:
    """The target of *engine*; it runs from the attach on. Leaving waits for a command that we started, and ends one
    that has not begun."""

    def __init__(self, engine: ProcessEngine, command: Sequence[str]) -> None:
        self._engine = engine
        self._ours = bool(command)
        self.within = Within(engine.pid, native=True)
        self.note = ""
        self._image = self._look()

    @property
    def status(self) -> int:
        """Return the command's exit status as a shell tells it, 0 where there is none."""
        code = self._engine.exit_status
        if code is None:
            return 0
        return code if code >= 0 else 128 - code

    def release(self) -> None:
        """Let the command run."""
        self._engine.run()

    def poll(self) -> bool:
        """Return whether the process has ended; note if it became another program, where its probes are gone."""
        if self._image and (now := self._look()) and now != self._image:
            self._image = now
            self.note = (
                f"process {self._engine.pid} became another program by exec, {now}: probes stay behind; "
                "name that program itself (version managers and scripts put others in front of it)"
            )
        return self._engine.wait(0)

    def _look(self) -> str:
        """Return the program that the process runs now; empty where that can't be told."""
        try:
            return os.readlink(f"/proc/{self._engine.pid}/exe")  # noqa: PTH115
        except OSError:
            return ""

    def interrupt(self) -> None:
        """Pass the wish on to a command of ours; a terminal has sent its own SIGINT to the whole group already."""
        if self._ours and not self.poll() and os.getpgrp() != os.getpgid(self._engine.pid):
            os.kill(self._engine.pid, signal.SIGINT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ours:
            self._engine.abandon()
            self._engine.wait()
