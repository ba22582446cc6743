"""The entry point: find the command, hand it its arguments, and turn errors into one clear message and an exit code."""

from __future__ import annotations

import os
import sys
from errno import EDQUOT, EFBIG, ENOSPC

from kprobes.errors import InternalError, KprobesError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from kprobes.cli.parser import Namespace, Parser

    class Command(Protocol):
        """What each command's module offers."""

        def add_arguments(self, parser: Parser) -> None:
            """Describe the command's own options."""

        def run(self, arguments: Namespace) -> int:
            """Carry the command out; return the exit code."""


# name -> (module, what it does); the order is that of the help
COMMANDS = {
    "trace": ("trace", "one line per hit, with arguments"),
    "count": ("count", "hits per function; globs welcome"),
    "hist": ("hist", "a histogram of an expression"),
    "latency": ("latency", "a histogram of the time a function takes"),
    "run": ("run", "a probe script"),
    "replay": ("replay", "a script's handlers again, on what `run --record` saved"),
    "list": ("listing", "what can be probed"),
    "info": ("info", "prototype of a function, and whether and how it can be probed"),
    "check": ("check", "the kernel's verdict on probe definitions, offline"),
    "events": ("events", "the kernel's own probe events in tracefs: list, add, remove, enable"),
    "export": ("export", "a kernel module in C, or a compiled bundle"),
    "explain": ("explain", "what arming a probe at a place does, step by step"),
    "vm": ("vm", "the kernel in a box: boot one and keep it up"),
    "detach": ("detach", "take away what a killed controller left in a process"),
    "doctor": ("doctor", "what works on this machine, and the exact fix for what doesn't"),
    "completion": ("completion", "a completion script for your shell"),
}
INTERRUPTED = 130
BROKEN_PIPE = 141
NO_ROOM = (EFBIG, ENOSPC, EDQUOT)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `kprobes` with *argv* (default: the process's own); return the exit code: 0, 1 failed, 2 usage, 130
    interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    if None in (sys.stdin, sys.stdout, sys.stderr):
        _open_streams()
    try:
        return _dispatch(words)
    except KprobesError as error:
        _report(error, as_json=_wants_json(words))
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output is gone: say nothing, and keep the interpreter from trying again at exit.
        _close_output()
        return BROKEN_PIPE
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            _close_output()
            _report(KprobesError(f"can't write: {os.strerror(error.errno)}"), as_json=_wants_json(words))
            return 1
        if isinstance(error, ModuleNotFoundError) and not (error.name or "kprobes").startswith("kprobes"):
            _report(_missing(error.name), as_json=_wants_json(words))
            return 1
        if os.environ.get("KPROBES_DEBUG"):
            raise
        _report(InternalError(f"{type(error).__name__}: {error} (KPROBES_DEBUG=1 shows where)"))
        return 1


def _missing(module: str | None) -> KprobesError:
    package = f"{module}".partition(".")[0].replace("_", "-")
    hint = f"install it for {sys.executable}, with all that kprobes stands on: pip install kprobes"
    return KprobesError(f"the Python package {package} is needed and isn't installed", hint=hint)


def _open_streams() -> None:
    """Open the null device for standard streams that were closed: what is opened later must not get their numbers."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 - as long as the process lives
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def _close_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        if len(words) > 1 and words[1] in COMMANDS:
            return _dispatch([words[1], "--help"])
        sys.stdout.write(_overview())
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        from kprobes.version import VERSION

        sys.stdout.write(f"kprobes {VERSION}\n")
        return 0
    if words[0] not in COMMANDS:
        raise UsageError(f"no command {words[0]!r}", hint=_nearest(words[0]))
    from kprobes.cli.options import make_parser, parse

    name = words[0]
    module, summary = COMMANDS[name]
    # not importlib.import_module: `importlib` is a millisecond of every start
    command: Command = __import__(f"kprobes.cli.{module}", fromlist=("run",))
    parser = make_parser(name, summary, command.__doc__ or "")
    command.add_arguments(parser)
    return command.run(parse(parser, words[1:]))


def _nearest(word: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word, COMMANDS, 1)
    return f"did you mean `kprobes {near[0]}`?" if near else "`kprobes --help` lists the commands"


def _overview() -> str:
    rows = "".join(f"  {name:<12}{summary}\n" for name, (_, summary) in COMMANDS.items())
    return (
        "usage: kprobes COMMAND [OPTIONS] ...\n\n"
        "Dynamic probing for Linux, programmed in Python.\n\n"
        f"{rows}\n"
        "A first minute:\n"
        "  kprobes doctor                          what works on this machine\n"
        "  kprobes trace --vm vfs_read             probe a real kernel in a box, no root needed\n"
        "  kprobes count 'vfs_*' --duration 5      hits per function of this machine's kernel\n"
        "  kprobes latency vfs_write               how long does it take?\n"
        "  kprobes COMMAND --help                  options and examples\n"
    )


def _wants_json(words: list[str]) -> bool:
    own = words[: words.index("--")] if "--" in words else words
    given = own[own.index("--format") + 1 :][:1] if "--format" in own else []
    return "--format=json" in own or given == ["json"]


def _report(error: KprobesError, *, as_json: bool = False) -> None:
    from kprobes.cli.problems import write_problems

    sys.stdout.flush()
    write_problems(error, sys.stderr, as_json=as_json)


if __name__ == "__main__":
    sys.exit(main())
