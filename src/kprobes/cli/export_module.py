"""`kprobes export module`: definitions and scripts in, a directory with C, a Makefile and a README out."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from kprobes.cli.export import is_definition
from kprobes.cli.options import ANY_KERNEL
from kprobes.errors import DefinitionError, KprobesError, TypeNotFoundError, UsageError
from kprobes.export.cnaming import KEYWORDS, Names, identifier
from kprobes.export.definitions import definition_part
from kprobes.export.module import module_source
from kprobes.export.prelude import HELPERS
from kprobes.grammar.events import Events, parse
from kprobes.grammar.facts import KERNELS
from kprobes.grammar.world import UNKNOWN, World
from kprobes.model.definition import Definition, KernelPlace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kprobes.cli.parser import Namespace
    from kprobes.export.part import ModuleSource, Part, Shared
    from kprobes.model.ctype import Types
    from kprobes.model.facts import Facts
    from kprobes.model.probe import Probe

# Identifiers of the module's own frame.
FRAME = frozenset({"site", "return_site", "site_of", "sites", "returns", "at", "error", *HELPERS, *KEYWORDS.split()})
# What the files of an export have in them.
OWN = (
    "# SPDX-License-Identifier: GPL-2.0 OR MIT\nobj-m := ",
    "written by `kprobes export module`",
    "(`kprobes export module`)",
)


def export_module(arguments: Namespace) -> int:
    """Write the module, and build it where that is asked for."""
    directory = Path(arguments.output)
    name = identifier(arguments.name or directory.resolve().name)
    kernel = _kernel(arguments)
    definitions = [item for item in arguments.items if is_definition(item)]
    scripts = [item for item in arguments.items if not is_definition(item)]
    names = Names(FRAME | {f"{name}_init", f"{name}_exit"})
    with _target(kernel) as facts:
        parts: list[Part] = _definitions(definitions, facts, names, stack=arguments.stack)
        shared: list[Shared] = []
        if scripts:
            from kprobes.export.script import script_parts

            translated, shared = script_parts(_probes(scripts, arguments), facts, names, tuple(arguments.include))
            parts += translated
    source = module_source(name, parts, shared, tuple(arguments.include))
    write_module(directory, source)
    sys.stderr.write(f"{directory}/{name}.c, Makefile and README.md are written\n")
    if not arguments.build:
        sys.stderr.write(f"build it with `make -C {quote(str(directory))}`; the README says more\n")
        return 0
    return _build(directory, name, kernel)


def _probes(scripts: list[str], arguments: Namespace) -> list[Probe]:
    """Return the probes of the scripts, with the values of --set."""
    from kprobes.cli.run import load_script, probes_of, values_given
    from kprobes.planner.settings import settings_of, with_settings

    probes = [probe for path in scripts for probe in probes_of(load_script(path), path)]
    return list(with_settings(probes, values_given(arguments.set, settings_of(probes)))) if arguments.set else probes


def _kernel(arguments: Namespace) -> str | None:
    named = arguments.kernel or arguments.vm
    if named is None:
        return None
    from kprobes.engines.vm.kernels import DEFAULT_KERNEL

    return DEFAULT_KERNEL if named == ANY_KERNEL else str(named)


@contextmanager
def _target(kernel: str | None) -> Iterator[Facts]:
    """Give the facts of the kernel in a box, or of this machine's."""
    from kprobes.cli.boot import show_progress
    from kprobes.engines.targets import Kernel, Machine

    engine = (Kernel() if kernel is None else Machine(kernel, progress=show_progress)).open()
    try:
        yield engine.facts()
    finally:
        engine.close()


def _definitions(definitions: list[str], facts: Facts, names: Names, *, stack: bool) -> list[Part]:
    if not definitions:
        return []
    types = _types_of(facts)
    world = UNKNOWN if types is None else World(types=types)
    found = []
    language = KERNELS[-1]  # C has what the newest one has
    for text in definitions:
        try:
            parse(text, language, world=world)  # refuses as a kernel would
        except DefinitionError as refused:
            refused.command = refused.command or text  # of several definitions this is the one
            raise
        means = Events(language, world=world).read(text)
        assert isinstance(means, Definition)
        place = means.place
        prototype = types.function(place.symbol) if types and isinstance(place, KernelPlace) else None
        found.append(definition_part(means, names, prototype, stack=stack))
    return found


def _types_of(facts: Facts) -> Types | None:
    from kprobes.symbols.btf_types import KernelTypes

    try:
        return KernelTypes.load(facts)
    except (TypeNotFoundError, OSError):
        return None  # registers have no comments then


def write_module(directory: Path, source: ModuleSource) -> None:
    """Write the files of *source* into *directory*.

    Raises:
        UsageError: one is there that is not of an export, or it can't be written.
    """
    files = {f"{source.name}.c": source.code, "Makefile": source.makefile, "README.md": source.readme}
    try:
        if directory.exists() and not directory.is_dir():
            raise UsageError(f"{directory} is no directory", hint="a module has three files: name a directory")
        directory.mkdir(parents=True, exist_ok=True)
        for name in files:
            _refuse_others(directory / name)
        for name, text in files.items():
            (directory / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"can't write to {directory}: {error.strerror}", hint="name a directory that is yours"
        ) from error


def _refuse_others(file: Path) -> None:
    """Raise where *file* is there and not of an export: `-o .` in a user's project must not cost its Makefile."""
    if file.is_symlink() or (file.exists() and not file.is_file()):
        hint = "name a directory of its own: -o DIR"
        raise UsageError(f"{file} is a link or a device, and is not written through", hint=hint)
    if file.exists() and not any(mark in file.read_text(encoding="utf-8", errors="replace") for mark in OWN):
        raise UsageError(
            f"{file} is there already, and `kprobes export module` has not written it",
            hint="name a directory of its own: -o DIR",
        )


def _build(directory: Path, name: str, kernel: str | None) -> int:
    command = ["make", "-C", str(directory)]
    if kernel is not None:
        from kprobes.cli.boot import show_progress
        from kprobes.engines.vm.headers import open_headers

        command.append(f"KDIR={open_headers(kernel, show_progress).build}")
    try:
        status = subprocess.run(command, check=False, stdout=sys.stderr).returncode
    except FileNotFoundError:
        raise KprobesError("a module is built with make, which isn't here", hint="apt-get install gcc make") from None
    if status:
        hint = "apt-get install linux-headers-$(uname -r), or build for a kernel in a box: --vm=6.12"
        raise KprobesError("the module was not built: make says why above", hint=hint if kernel is None else "")
    sys.stderr.write(f"{directory}/{name}.ko is built\n")
    return 0
