"""The verdict of a kernel on probe definitions, without touching anything.

examples:
  kprobes check probes.txt                     as this machine's version of the kernel takes them
  kprobes check --kernel 5.10 --json - <probes.txt
  kprobes check --kind uprobe probes.txt       lines of uprobe_events; dynamic: of dynamic_events
  kprobes check --kallsyms /proc/kallsyms probes.txt
  kprobes check --arch arm64 probes.txt        by the registers of another architecture
  kprobes check --vm=6.1 probes.txt            with the symbols and types of a kernel in a box
Lines are taken as if written one by one to a fresh kprobe_events. Without symbols, every function is taken to exist.
Exits with 1 if a line is refused, with 2 if nothing could be checked. The column of the caret counts bytes from 0, as
error_log shows it.
"""

from __future__ import annotations

import os
import stat
import sys
from contextlib import contextmanager
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, BinaryIO

from kprobes.arch.registers import machine_name
from kprobes.cli.options import ANY_KERNEL
from kprobes.errors import FormatError, KprobesError, UsageError
from kprobes.export.magic import MAGIC
from kprobes.grammar.events import KINDS, Events
from kprobes.grammar.facts import DEFAULT, KERNELS, dialect
from kprobes.grammar.others import other_kind
from kprobes.grammar.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import BufferedReader

    from kprobes.cli.parser import Namespace, Parser
    from kprobes.engines.vm.machine import Machine
    from kprobes.errors import DefinitionError
    from kprobes.grammar.events import Verdict
    from kprobes.grammar.facts import Dialect
    from kprobes.grammar.world import Files
    from kprobes.symbols.definitions import DefinitionSymbols

ROWS = 512  # that are written at a time: as much as a pipe holds, and more


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.add_argument(
        "file", nargs="?", default="-", metavar="FILE", help="definitions, one a line; - is standard input"
    )
    parser.add_argument(
        "--kernel", metavar="V", help=f"whose rules: {', '.join(KERNELS)} or one between (default: this machine's)"
    )
    parser.add_argument(
        "--arch", metavar="ARCH", help="whose registers and sizes: x86_64 (default: this machine's), aarch64, i386"
    )
    parser.add_argument("--kind", choices=KINDS, default="kprobe", help="the file they are meant for")
    parser.add_argument("--json", action="store_true", help="one object per line")
    parser.add_argument("--kallsyms", metavar="FILE", help="check symbols, too: by a copy of /proc/kallsyms")
    parser.add_argument("--vm", metavar="KERNEL", help="check by the symbols and types of a kernel in a box")
    parser.add_argument("--files", action="store_true", help="look for the files of uprobes on this machine")


def run(arguments: Namespace) -> int:
    """Check the lines of a file."""
    try:
        return _check(arguments)
    except KprobesError as error:
        error.exit_code = UsageError.exit_code  # 1 is the status of a refused line
        raise


def _check(arguments: Namespace) -> int:
    if arguments.vm and (arguments.kernel or arguments.kallsyms):
        raise UsageError("--vm brings its own kernel and symbols", hint="leave --kernel and --kallsyms out")
    with _input(arguments.file) as lines, _world(arguments) as (language, world):
        if language.note:
            sys.stderr.write(f"note: {language.note}\n")
        events = Events(language, arguments.kind, world)
        told = _told_json if arguments.json else _told_text
        refused = 0
        with _rows() as write:
            for number, line in enumerate(lines, 1):
                text = line.rstrip(b"\n").decode("utf-8", "surrogateescape")
                other = other_kind(text, language) if arguments.kind == "dynamic" else ""
                if other:
                    write(_told_unknown(number, other, json=arguments.json))
                    continue
                verdict = events.check(text)
                refused += not verdict.ok
                write(told(number, verdict))
    return 1 if refused else 0


@contextmanager
def _rows() -> Iterator[Callable[[str], object]]:
    """Yield what writes a row: many at a time where nobody watches, since each write to a pipe wakes its reader."""
    if sys.stdout.isatty():
        yield sys.stdout.write
        return
    kept: list[str] = []

    def write(row: str) -> None:
        kept.append(row)
        if len(kept) == ROWS:
            sys.stdout.write("".join(kept))
            kept.clear()

    try:
        yield write
    finally:
        sys.stdout.write("".join(kept))


@contextmanager
def _input(name: str) -> Iterator[Iterator[bytes]]:
    if name == "-":
        yield _lines(sys.stdin.buffer, "standard input")
        return
    try:
        file = open(name, "rb")  # noqa: PTH123, SIM115 - closed below
    except OSError as error:
        hint = f"a definition goes in by standard input: echo '{name}' | kprobes check" if " " in name else ""
        raise UsageError(f"{name} can't be read: {error.strerror}", hint=hint) from error
    with file:
        if _begins_like_a_bundle(file):
            raise UsageError(f"{name} is a bundle, which has no definitions", hint=f"kprobes info {name} tells of it")
        yield _lines(file, name)


def _begins_like_a_bundle(file: BufferedReader) -> bool:
    try:
        return file.peek(len(MAGIC)).startswith(MAGIC)
    except OSError:  # told where its lines are read
        return False


def _lines(file: BinaryIO, name: str) -> Iterator[bytes]:
    try:
        yield from file
    except OSError as error:
        raise UsageError(f"{name} can't be read: {error.strerror}") from error


@contextmanager
def _world(arguments: Namespace) -> Iterator[tuple[Dialect, World]]:
    files = LocalFiles() if arguments.files else None
    if arguments.vm:
        from kprobes.cli.boot import show_progress
        from kprobes.engines.vm.arches import kernel_name
        from kprobes.engines.vm.kernels import DEFAULT_KERNEL, open_kernel
        from kprobes.engines.vm.machine import open_machine

        name = kernel_name(DEFAULT_KERNEL if arguments.vm == ANY_KERNEL else arguments.vm, arguments.arch or "")
        machine = open_machine(name, progress=show_progress)
        try:
            kernel = open_kernel(name)
            yield dialect(kernel.release, kernel.arch), world_of(machine, files)
        finally:
            machine.close()
        return
    language = dialect(arguments.kernel or _own_version(), machine_name(arguments.arch or os.uname().machine))
    symbols = _symbols(arguments.kallsyms, language.machine.name) if arguments.kallsyms else None
    yield language, World(symbols, files, cpus=os.cpu_count() or 1)


def _symbols(path: str, arch: str) -> DefinitionSymbols:
    from kprobes.symbols.definitions import DefinitionSymbols
    from kprobes.symbols.kallsyms import Kallsyms

    table = Kallsyms.load(path, cached=False)
    if table.hidden:
        raise FormatError("the symbol table has no addresses", hint="copy it as root: they are hidden from others")
    return DefinitionSymbols(table, arch=arch)


def world_of(machine: Machine, files: Files | None) -> World:
    """Return what is known of a guest's kernel."""
    from kprobes.engines.vm.kernels import open_kernel
    from kprobes.symbols.btf_types import KernelTypes
    from kprobes.symbols.definitions import DefinitionSymbols, character_ids, code_reader
    from kprobes.symbols.kallsyms import Kallsyms

    facts, kernel = machine.facts(), open_kernel(machine.kernel)
    symbols = DefinitionSymbols(
        Kallsyms.load(facts.kallsyms()),
        functions=facts.text("functions"),
        blacklist=facts.text("blacklist"),
        read=code_reader(kernel.boot),
        arch=kernel.arch,
    )
    path = facts.btf()
    events = (facts.text("events") or "").split()
    return World(
        symbols,
        files,
        KernelTypes.load(facts) if path else None,
        cpus=2,
        events=frozenset(name.replace(":", "/") for name in events),
        character_ids=character_ids(path) if path else frozenset(),
    )


def _own_version() -> str:
    release = os.uname().release
    parts = release.split(".")
    known = len(parts) > 1 and parts[0].isdigit() and (int(parts[0]), int(parts[1].partition("-")[0] or 0)) >= (5, 10)
    return release if known else DEFAULT


class LocalFiles:
    """The files of this machine."""

    def look(self, path: str) -> tuple[int, bool, str]:
        """Return (errno, whether it is a regular file, what names the file itself) of *path*."""
        try:
            found = os.stat(path.encode("latin-1"))  # noqa: PTH116 - a path of any bytes
        except OSError as error:
            return error.errno or 0, False, ""
        return 0, stat.S_ISREG(found.st_mode), f"{found.st_dev}:{found.st_ino}"


def _told_json(number: int, verdict: Verdict) -> str:
    error = verdict.error
    if error is None:
        told = f'"ok": true, "canonical": {_quoted(verdict.canonical)}, "error": null, "column": null, "errno": null'
    else:
        column = "null" if error.column is None else error.column
        told = f'"ok": false, "canonical": null, "error": {_quoted(error.what)}, "column": {column}'
        told += f', "errno": {error.errno}'
    return f'{{"line": {number}, {told}}}\n'


def _told_unknown(number: int, kind: str, *, json: bool) -> str:
    why = f"{kind} are not modelled here"
    if json:
        told = f'"ok": null, "canonical": null, "error": {_quoted(why)}, "column": null, "errno": null'
        return f'{{"line": {number}, {told}}}\n'
    return f"{number:>5}  no verdict: {why}\n"


def _quoted(text: str | None) -> str:
    """Return *text* as JSON; a dictionary a line would take `json` longer than the verdict takes us."""
    return "null" if text is None else encode_basestring_ascii(text)


def _told_text(number: int, verdict: Verdict) -> str:
    if verdict.error is None:
        return f"{number:>5}  ok       {_shown(verdict.canonical or '')}".rstrip() + "\n"
    return _refusal(number, verdict.error)


def _refusal(number: int, error: DefinitionError) -> str:
    from errno import errorcode

    lines = [f"{number:>5}  refused  {error.what} ({errorcode.get(error.errno, error.errno)})"]
    if error.command:
        lines.append(f"{'':16}{_shown(error.command)}")
    if error.indent is not None:
        lines.append(f"{'':16}{' ' * error.indent}^")
    if error.hint:
        lines.append(f"{'':7}hint: {error.hint}")
    return "".join(f"{line}\n" for line in lines)


def _shown(text: str) -> str:
    from kprobes.render.escape import escape

    return escape(text)
