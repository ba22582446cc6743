"""Which settings the handlers of some probes name, and giving them values."""

from __future__ import annotations

from types import FunctionType, ModuleType

from kprobes.errors import CompileError, UsageError
from kprobes.frozen import replace
from kprobes.model.probe import HandlerSource, Probe
from kprobes.model.setting import Setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kprobes.model.setting import SettingValue


def settings_of(probes: Sequence[Probe]) -> dict[str, Setting]:
    """Return the settings that the handlers of *probes* and the functions they call name, by their names.

    Raises:
        UsageError: two of one name differ.
    """
    found: dict[str, Setting] = {}
    for probe in probes:
        if isinstance(probe.handler, HandlerSource):
            for one in _named(probe.handler, set()):
                known = found.setdefault(one.name, one)
                if (known.kind, known.default) != (one.kind, one.default):
                    what = f"two settings are called {one.name!r} and differ"
                    raise UsageError(what, hint="give each its own name, or share one object between the handlers")
    return found


def with_settings(probes: Sequence[Probe], values: Mapping[str, object]) -> tuple[Probe, ...]:
    """Return *probes* with these *values* for their settings.

    Raises:
        UsageError: no handler names such a setting, or the value is of another type.
    """
    if not values:
        return tuple(probes)
    known = settings_of(probes)
    given = tuple((name, setting_called(name, known).checked(value)) for name, value in sorted(values.items()))
    return tuple(replace(probe, settings=given) for probe in probes)


def values_of(probes: Sequence[Probe]) -> dict[str, SettingValue]:
    """Return the value of each setting that the handlers of *probes* name."""
    given = {name: value for probe in probes for name, value in probe.settings}
    return {name: given.get(name, one.default) for name, one in settings_of(probes).items()}


def setting_called(name: str, known: Mapping[str, Setting]) -> Setting:
    """Return the setting *name* of those *known*.

    Raises:
        UsageError: there is none; the hint names those that there are.
    """
    if name in known:
        return known[name]
    hint = f"there are {', '.join(known)}" if known else 'declare one: min_us = Setting("min_us", 100)'
    raise UsageError(f"no handler has a setting {name!r}", hint=hint)


def _named(source: HandlerSource, seen: set[int]) -> Iterator[Setting]:
    from kprobes.compiler.front.source import source_of

    text = "".join([letter if letter == "_" or letter.isalnum() else " " for letter in source.text])
    words = dict.fromkeys(text.split())
    things = [source.names[word] for word in words if word in source.names]
    things += [vars(one).get(word) for one in things if isinstance(one, ModuleType) for word in words]
    for thing in things:
        if isinstance(thing, Setting):
            yield thing
        elif isinstance(thing, FunctionType) and id(thing) not in seen:
            seen.add(id(thing))
            try:
                called = source_of(thing)
            except CompileError:  # it may only be a word in the text: whether it is meant, the compiler says
                continue
            yield from _named(called, seen)
