"""The monitor of a QEMU: commands as JSON lines. Used to save a machine and to restore one.

Source: docs/interop/qmp-spec.txt of QEMU.
"""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING

from kprobes.errors import TargetError

if TYPE_CHECKING:
    from types import TracebackType

ANSWER_S = 30.0
MIGRATE_S = 60.0


class Monitor:
    """A connection to QEMU's monitor. *remote* is the end that QEMU gets."""

    def __init__(self) -> None:
        self._socket, self.remote = socket.socketpair()
        self._socket.settimeout(ANSWER_S)
        self._lines = self._socket.makefile("rb")

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Greet; QEMU runs by now."""
        self.remote.close()
        self._receive()
        self.command("qmp_capabilities")

    def command(self, name: str, descriptors: tuple[int, ...] = (), **arguments: object) -> dict[str, object]:
        """Carry out a command, with *descriptors* handed over, and return what it returns.

        Raises:
            TargetError: QEMU refused, or is gone.
        """
        text = json.dumps({"execute": name, "arguments": arguments}).encode()
        try:
            socket.send_fds(self._socket, [text], descriptors)
            while "return" not in (answer := self._receive()):
                if "error" in answer:
                    raise TargetError(f"QEMU refused {name}: {answer['error']}")
        except OSError as error:
            raise TargetError(f"QEMU did not answer {name}: {error}") from error
        returned = answer["return"]
        return returned if isinstance(returned, dict) else {}

    def save(self, state: int) -> None:
        """Stop the machine and write all of it but its memory, which is a shared file, to the descriptor *state*.

        Raises:
            TargetError: QEMU could not.
        """
        self.command("stop")
        self._migrate("migrate", state)

    def restore(self, state: int) -> None:
        """Go on from what `save` wrote to *state*; QEMU was started with `RESTORE_WORDS`.

        Raises:
            TargetError: QEMU could not.
        """
        self._migrate("migrate-incoming", state)
        self.command("cont")

    def _migrate(self, command: str, state: int) -> None:
        self.command("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": True}])
        self.command("getfd", (state,), fdname="state")
        self.command(command, uri="fd:state")
        deadline = time.monotonic() + MIGRATE_S
        while (status := self.command("query-migrate").get("status")) != "completed":
            if status in {"failed", "cancelled"} or time.monotonic() > deadline:
                raise TargetError(f"QEMU could not {command}: {status}")
            time.sleep(0.002)

    def close(self) -> None:
        """Hang up; idempotent."""
        self._lines.close()
        self._socket.close()
        self.remote.close()

    def _receive(self) -> dict[str, object]:
        line = self._lines.readline()
        if not line:
            raise TargetError("QEMU is gone")
        answer = json.loads(line)
        return answer if isinstance(answer, dict) else {}
