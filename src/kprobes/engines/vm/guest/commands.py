"""Commands in the guest: started with files copied in before, their output streamed, their status reported."""

# No pathlib: an emulated CPU takes 0.1 s to import it.
# ruff: noqa: PTH101, PTH103, PTH112, PTH118, PTH120, PTH123

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING

from kprobes.errors import SyscallError, UsageError

if TYPE_CHECKING:
    from kprobes.engines.vm.frames import Head
    from kprobes.engines.vm.guest.streams import Stream

CHUNK = 1 << 16
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
    "HOME": "/root",
    "TERM": "linux",
    "USER": "root",
    "LOGNAME": "root",
}


class Command:
    """A running command. Its output goes to *stream*: blobs with `fd` 1 or 2, at the end a message with `status`."""

    def __init__(self, arguments: Head, stream: Stream) -> None:
        self._stream = stream
        self._input = -1
        options = arguments.get("options")
        options = options if isinstance(options, dict) else {}
        self._terminal = bool(options.get("terminal"))
        argv = arguments["argv"]
        if not isinstance(argv, list) or not argv or not all(isinstance(word, str) for word in argv):
            raise UsageError("a command for the guest is a list of words")
        environment = {**ENVIRONMENT, **_words(arguments.get("environment"))}
        directory = str(options.get("directory") or "/root")
        program = _find_program(argv[0], environment["PATH"], directory)
        self._open_ends(wants_input=bool(options.get("input")))
        self.pid = self._start(program, argv, environment, directory)
        Thread(target=self._pump, daemon=True).start()

    def write(self, data: bytes) -> None:
        """Give *data* to the command's standard input; nothing ends it."""
        if self._input < 0:
            return
        try:
            if data:
                view = memoryview(data)
                while view:
                    view = view[os.write(self._input, view) :]
            elif not self._terminal:
                os.close(self._input)
                self._input = -1
        except OSError:
            self._input = -1

    def resize(self, rows: int, columns: int) -> None:
        """Tell a terminal's new size."""
        import fcntl
        import struct
        import termios

        if self._terminal:
            fcntl.ioctl(self._input, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the command and what it started (its process group)."""
        with suppress(OSError):
            os.killpg(self.pid, number)

    def _open_ends(self, *, wants_input: bool) -> None:
        """Make the standard streams: `_child_ends` for the command; `_outputs` (descriptor -> 1 or 2) and `_input`."""
        if self._terminal:
            controller, terminal = os.openpty()
            self._child_ends = (terminal, terminal, terminal)
            self._outputs = {controller: 1}
            self._input = controller
            return
        out, out_end = os.pipe()
        error, error_end = os.pipe()
        if wants_input:
            input_end, self._input = os.pipe()
        else:
            # not /dev/null: nobody wants to see our own opening of files among what is probed
            input_end, writer = os.pipe()
            os.close(writer)
        self._child_ends = (input_end, out_end, error_end)
        self._outputs = {out: 1, error: 2}

    def _start(self, program: str, argv: list[str], environment: dict[str, str], directory: str) -> int:
        child = os.fork()
        if child:
            for end in set(self._child_ends):
                os.close(end)
            return child
        try:
            os.setsid()
            for number, end in enumerate(self._child_ends):
                os.dup2(end, number)
            if self._terminal:
                import fcntl
                import termios

                fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.chdir(directory)
            os.execve(program, argv, environment)  # noqa: S606  what the controller asked for
        except OSError as error:
            os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
        finally:
            os._exit(126)

    def _pump(self) -> None:
        """Forward output until the command has ended and its pipes are empty; what it left may hold them open."""
        poll = select.poll()
        ended = os.pidfd_open(self.pid)
        for descriptor in (ended, *self._outputs):
            poll.register(descriptor, select.POLLIN)
        running = True
        while self._stream.wait_for_room():
            ready = [descriptor for descriptor, _ in poll.poll(None if running else 0)]
            if ended in ready:
                running = False
                poll.unregister(ended)
            outputs = [descriptor for descriptor in ready if descriptor in self._outputs]
            if not outputs and not running:
                break
            for descriptor in outputs:
                self._forward(descriptor, poll)
        _, status = os.waitpid(self.pid, 0)
        for descriptor in (ended, *self._outputs):
            os.close(descriptor)
        self._stream.send(b"", status=os.waitstatus_to_exitcode(status))

    def _forward(self, descriptor: int, poll: select.poll) -> None:
        try:
            data = os.read(descriptor, CHUNK)
        except OSError:  # EIO: the last one closed the terminal
            data = b""
        if data:
            self._stream.send(data, fd=self._outputs[descriptor])
        else:
            poll.unregister(descriptor)
            os.close(descriptor)
            del self._outputs[descriptor]


def put_file(path: str, content: bytes, mode: int) -> None:
    """Write a file that the controller copies in.

    Raises:
        SyscallError: it can't be written.
    """
    try:
        os.makedirs(os.path.dirname(path) or "/", exist_ok=True)
        with open(path, "wb") as stream:
            stream.write(content)
        os.chmod(path, mode)
    except OSError as error:
        raise SyscallError(f"copying to {path} in the guest", error.errno or 0) from error


def _words(value: object) -> dict[str, str]:
    return {str(name): str(word) for name, word in value.items()} if isinstance(value, dict) else {}


def _find_program(name: str, path: str, directory: str) -> str:
    """Return the file that *name* means to a command that starts in *directory*.

    Raises:
        UsageError: there is no such program in the guest.
    """
    candidates = [os.path.join(directory, name)] if "/" in name else [f"{place}/{name}" for place in path.split(":")]
    for candidate in candidates:
        if os.access(candidate, os.X_OK) and not os.path.isdir(candidate):
            return candidate
    raise UsageError(
        f"there is no program {name!r} in the guest",
        hint="the guest has busybox; copy a program in with --copy FILE (a static one, or with the libraries it needs)",
    )
