"""Running bundles: the plan that fits the target is looked for and attached. Nothing is compiled, and nothing of the
compiler is loaded."""

from __future__ import annotations

import os

from kprobes.errors import (
    FormatError,
    KprobesError,
    SyscallError,
    UnprobeableError,
    UnsupportedError,
    UsageError,
    VerifierError,
)
from kprobes.export.bundlefile import LARGEST, REMAKE, bundle_from_bytes
from kprobes.frozen import replace
from kprobes.model.probe import Probe
from kprobes.model.wire import plan_from_bytes
from kprobes.session.session import Session
from kprobes.symbols.elf import ElfFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.engines.port import Engine
    from kprobes.export.bundlefile import Bundle, BundledTarget
    from kprobes.model.plan import Plan
    from kprobes.model.within import Within


def load_bundle(path: str) -> Bundle:
    """Return the bundle in the file *path*.

    Raises:
        UsageError: the file can't be read. FormatError: it is damaged, or of another version.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise UsageError(f"can't read {path!r}: {error.strerror}") from error
    return bundle_from_bytes(data)


def probes_in(bundle: Bundle) -> list[Probe]:
    """Return the probes of *bundle*, without their handlers."""
    return [Probe(one.kind, one.places, settings=bundle.settings) for one in bundle.probes]


def attach_bundle(engine: Engine, bundle: Bundle, within: Within) -> Session:
    """Attach what *bundle* has for the target of *engine*.

    Raises:
        UnsupportedError: it has nothing for this kernel, or for the files of this process.
        FormatError: its plans are those of another version of kprobes.
        KprobesError: the target refuses them.
    """
    if within.native:
        plan = _for_process(bundle, within)
        frames = None
        if plan.unwinding:
            from kprobes.symbols.frames import UserFrames

            frames = UserFrames(within.pid)
            frames.remember()
        return Session(engine, plan, engine.attach(plan), frames, probes=probes_in(bundle))
    refused: KprobesError | None = None
    for plan in _for_kernel(bundle, engine):
        try:
            return Session(engine, plan, engine.attach(plan), probes=probes_in(bundle))
        except (UnprobeableError, UnsupportedError, SyscallError, VerifierError) as error:
            refused = refused or error
    assert refused is not None
    raise refused


def _plans(bundle: Bundle, target: BundledTarget) -> list[Plan]:
    try:
        return [plan_from_bytes(one) for one in target.plans]
    except FormatError as error:
        from kprobes.version import VERSION

        what = f"this bundle was made by kprobes {bundle.made_by[:40]}, whose plans {VERSION} doesn't read"
        raise FormatError(what, hint=REMAKE) from error


def _for_kernel(bundle: Bundle, engine: Engine) -> list[Plan]:
    features = engine.facts().features
    kernels = [one for one in bundle.targets if one.kind == "kernel"]
    if not kernels:
        raise UsageError("this bundle is for a process", hint="name one: -p PID, or -- CMD")
    fitting = next((one for one in kernels if one.key == features.key), None)
    if fitting is None:
        has = ", ".join(one.release for one in kernels)
        what = f"this bundle is for the kernel {has}, this is another build: {features.release}"
        hint = "the types and programs of a kernel are those of its build: export the bundle for this one, too (--for)"
        raise UnsupportedError(what, hint=hint)
    if fitting.text and fitting.text != _text_address(engine):
        what = "this bundle's code holds addresses of the kernel as it lay when the bundle was made"
        hint = "boot with nokaslr, or leave var(), percpu(), address_of() and @SYMBOL out"
        raise UnsupportedError(what, hint=hint)
    return _plans(bundle, fitting)


def _text_address(engine: Engine) -> int:
    from kprobes.symbols.kallsyms import Kallsyms

    return Kallsyms.load(engine.facts().kallsyms()).kallsyms_lookup_name("_text")


def _for_process(bundle: Bundle, within: Within) -> Plan:
    targets = [one for one in bundle.targets if one.kind == "process"]
    if not targets:
        raise UsageError("this bundle is for a kernel", hint="leave -p and -- out, or add --vm")
    machine = os.uname().machine
    targets = [one for one in targets if one.release == machine]
    if not targets:
        raise UnsupportedError(f"this bundle's native code is not for {machine}", hint=REMAKE)
    missing = ""
    for target in targets:
        plan = _plans(bundle, target)[0]
        places = _find_files(target, within.pid)
        missing = next((site.path for site in plan.sites if site.path not in places), "")
        if not missing:
            return _moved(plan, places)
    raise UnsupportedError(
        f"this bundle is for another build of {missing}",
        hint="native code goes by the build-id of what it probes: export the bundle for this build",
    )


def _find_files(target: BundledTarget, pid: int) -> dict[str, str]:
    """Return where the files of *target* are here, of those that are the same build."""
    found: dict[str, str] = {}
    mapped: dict[str, str] | None = None
    for path, build_id in target.files:
        if _build_id(f"/proc/{pid}/root{path}") == build_id:
            found[path] = path
            continue
        mapped = _mapped(pid) if mapped is None else mapped
        if build_id in mapped:
            found[path] = mapped[build_id]
    return found


def _mapped(pid: int) -> dict[str, str]:
    """Return the files that the process *pid* has mapped, by their build-ids."""
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123
            paths = {line.split(None, 5)[-1].rstrip("\n") for line in file if "/" in line}
    except OSError:
        return {}
    named = ((_build_id(f"/proc/{pid}/root{path}"), path) for path in sorted(paths))
    return {build_id: path for build_id, path in named if build_id}


def _build_id(path: str) -> str:
    try:
        with ElfFile(path) as elf:
            return elf.build_id
    except (KprobesError, OSError):
        return ""


def _moved(plan: Plan, places: dict[str, str]) -> Plan:
    """Return *plan* with its files where they are here; how frames of others are found isn't known."""
    return replace(
        plan,
        sites=tuple(replace(one, path=places[one.path]) for one in plan.sites),
        objects=tuple(replace(one, path=places.get(one.path, one.path)) for one in plan.objects),
        unwinding=tuple(replace(one, path=places[one.path]) for one in plan.unwinding if one.path in places),
    )
