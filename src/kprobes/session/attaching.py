"""Attaching: probes are planned for a target and put in place."""

from __future__ import annotations

from kprobes.engines.targets import Kernel
from kprobes.errors import (
    HandlerWarning,
    KprobesError,
    PrivilegeError,
    SyscallError,
    UnprobeableError,
    UnsupportedError,
    UsageError,
    VerifierError,
)
from kprobes.frozen import replace
from kprobes.model.plan import Way
from kprobes.model.probe import FetchHandler, Probe
from kprobes.model.within import ANYWHERE, Within
from kprobes.session.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kprobes.engines.port import Attached, Engine
    from kprobes.engines.targets import Target
    from kprobes.events.recording import Recorder
    from kprobes.model.caution import Caution
    from kprobes.model.definition import Definition
    from kprobes.model.plan import Plan
    from kprobes.symbols.frames import KernelFrames, UserFrames

# Ways that a kernel may refuse for one function while the next still works.
NO_BPF = "there is no BPF here: the probes go by tracefs"
FALLBACKS = (frozenset({Way.FENTRY, Way.FEXIT}), frozenset({Way.KPROBE_MULTI, Way.KRETPROBE_MULTI}))


def attach(
    *probes: Probe | Definition | str,
    to: Target | None = None,
    warnings: bool = True,
    settings: Mapping[str, object] | None = None,
    filter: str = "",  # noqa: A002 - what the kernel calls it
) -> Session:
    """Attach *probes* to a target (default: this machine's kernel) and return the session, which detaches when closed.

    What is probably not meant in the handlers is told as a `HandlerWarning`, by Python's own `warnings`, unless
    *warnings* is false; `session.warnings` has it. *settings* gives `Setting`s of the handlers their values by name.
    A text is a definition in the kernel's own language (see `definition`), and so is what the grammar has parsed;
    *filter* is for them.

    Raises:
        KprobesError: a leaf of it says what can't be done, and why; nothing stays attached.
    """
    wanted = [one if isinstance(one, Probe) else _defined(one, filter) for one in probes]
    if filter and all(isinstance(one, Probe) for one in probes):
        raise UsageError("a filter is for definitions", hint="test in the handler: if ...: return")
    engine = (to or Kernel()).open()
    try:
        session = attach_to(engine, *wanted, within=within_of(engine), settings=settings)
    except BaseException:
        engine.close()
        raise
    if warnings and session.warnings:
        try:
            warn_of(session.warnings)
        except HandlerWarning:
            session.close()
            raise
    return session


def _defined(text: Definition | str, condition: str) -> Probe:
    from kprobes.decorators import definition

    return definition(text, filter=condition)


def warn_of(cautions: Iterable[Caution]) -> None:
    """Hand warnings to Python's machinery, which may be told to raise them as `HandlerWarning`s."""
    from warnings import warn_explicit

    for one in cautions:
        warn_explicit(str(one), HandlerWarning, one.file, one.line)


def within_of(engine: Engine) -> Within:
    """Return the process that *engine* probes natively, if it is one that does."""
    pid = getattr(engine, "pid", 0) if getattr(engine, "is_native", False) else 0
    return Within(pid, native=True) if pid else ANYWHERE


def attach_to(
    engine: Engine,
    *probes: Probe,
    within: Within = ANYWHERE,
    settings: Mapping[str, object] | None = None,
    recorder: Recorder | None = None,
) -> Session:
    """Attach *probes* through an open *engine*, which the session closes with itself.

    *within* limits probes of files to one process. Where the target refuses a fast way in, the next one is taken. What
    the handlers see goes to *recorder*.

    Raises:
        KprobesError: as `attach`; the engine stays the caller's then.
    """
    wanted = probes
    if settings:
        from kprobes.planner.settings import with_settings

        wanted = with_settings(probes, settings)
    if recorder is not None:
        wanted = tuple(replace(probe, record=True) for probe in wanted)
    plan, attached, frames = _attach(engine, wanted, within)
    session = Session(engine, plan, attached, frames, probes=probes, settings=settings, recorder=recorder)
    if recorder is not None:
        _begin_recording(recorder, plan, probes, None if within.native else engine)
    return session


def renew(session: Session, *probes: Probe, resting: Sequence[Probe] = (), within: Within) -> None:
    """Let *session*, of a process, go on with *probes*. Those that it had are there all the time, with what they have
    counted and gathered; of all, *resting* begin disabled.

    Raises:
        KprobesError: as `attach`; nothing has changed then.
    """
    from kprobes.session.renewal import inherited

    plan, frames = _plan_in_process(probes, within)
    passed = inherited((session.plan, session.asked), (plan, probes), resting)
    session.go_on_with(plan, passed, frames, probes)


def _begin_recording(recorder: Recorder, plan: Plan, probes: Sequence[Probe], engine: Engine | None) -> None:
    """Write what a replay must know of the target; *engine* is that of a kernel."""
    from kprobes.events.clock import own_offset

    meta: dict[str, object] = {"probes": [[probe.kind, list(probe.places), _definition(probe)] for probe in probes]}
    meta["clock_offset"] = getattr(engine, "clock_offset", own_offset)()
    types = b""
    if engine is not None:
        from kprobes.planner.ways import returns_tell

        facts = engine.facts()
        meta |= {"machine": facts.features.machine, "release": facts.features.release}
        meta["returns_tell"] = returns_tell(facts.features)
        points = [site.name for site in plan.sites if plan.probes[site.probe].kind == "tracepoint"]
        meta["formats"] = {name: facts.text(f"format:{name.replace(':', '/', 1)}") for name in points}
        path = facts.btf() if any(probe.kind not in ("uprobe", "uretprobe") for probe in plan.probes) else None
        if path:
            with open(path, "rb") as file:  # noqa: PTH123
                types = file.read()
    recorder.begin(plan, meta, types)


def _definition(probe: Probe) -> str:
    return probe.handler.text if isinstance(probe.handler, FetchHandler) else ""


def _attach(
    engine: Engine, probes: tuple[Probe, ...], within: Within
) -> tuple[Plan, Attached, KernelFrames | UserFrames | None]:
    if within.native:
        plan, frames = _plan_in_process(probes, within)
        return plan, engine.attach(plan), frames
    return *_attach_to_kernel(engine, probes, within), None


def _plan_in_process(probes: tuple[Probe, ...], within: Within) -> tuple[Plan, UserFrames | None]:
    from kprobes.planner.cache import cached_process_plan

    plan = cached_process_plan(probes, within)
    if not plan.unwinding:
        return plan, None
    from kprobes.symbols.frames import UserFrames

    frames = UserFrames(within.pid)
    frames.remember()  # a short program has ended when the first stack is read
    return plan, frames


def _attach_to_kernel(engine: Engine, probes: tuple[Probe, ...], within: Within) -> tuple[Plan, Attached]:
    """Plan and attach by BPF; where a kernel has none, or refuses it, by tracefs what that can carry out."""
    try:
        return _attach_in_kernel(engine, probes, within)
    except (UnsupportedError, PrivilegeError, SyscallError):
        if engine.facts().features.ring_buffer or any(probe.way for probe in probes):
            raise
        from kprobes.planner.tracefs import goes_by_tracefs

        if not all(map(goes_by_tracefs, probes)):
            raise
        try:
            plan, attached = _attach_in_kernel(
                engine, tuple(replace(probe, way=Way.TRACEFS) for probe in probes), within
            )
        except (UnsupportedError, PrivilegeError, SyscallError):
            plan = None
        if plan is None:
            raise
        return replace(plan, notes=(*plan.notes, NO_BPF)), attached


def _attach_in_kernel(engine: Engine, probes: tuple[Probe, ...], within: Within) -> tuple[Plan, Attached]:
    """Plan and attach, giving up the faster ways one by one where the target refuses them."""
    from kprobes.planner.cache import cached_plan

    avoid: frozenset[str] = frozenset()
    refused: KprobesError | None = None
    for family in (*FALLBACKS, frozenset[str]()):
        plan = cached_plan(probes, engine.facts(), avoid, within=within)
        try:
            return plan, engine.attach(plan)
        except (UnprobeableError, UnsupportedError, SyscallError, VerifierError) as error:
            taken = {way for probe in plan.probes for way in probe.ways}
            remaining = (frozenset().union(*FALLBACKS) & taken) - avoid  # a way that the user forces is taken again
            if not remaining:
                raise error from refused
            refused = error
            avoid |= family if family & taken else remaining
    raise UsageError("no way in is left")  # pragma: no cover - the last round raises
