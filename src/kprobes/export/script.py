"""The probes of a script as a module's parts, with the maps and settings that they share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.errors import CompileError, all_mistakes
from kprobes.export.cnaming import c_string
from kprobes.export.handlers import probe_parts
from kprobes.export.part import Shared as SharedPart
from kprobes.export.unit import Shared
from kprobes.planner.places import Places

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.export.cnaming import Names
    from kprobes.export.part import Part
    from kprobes.model.facts import Facts
    from kprobes.model.mapspec import MapSpec
    from kprobes.model.probe import Probe
    from kprobes.model.setting import Setting, SettingValue


def script_parts(
    probes: Sequence[Probe], facts: Facts, names: Names, includes: tuple[str, ...] = ()
) -> tuple[list[Part], list[SharedPart]]:
    """Return *probes* in C, and what they share; *facts* tell the types, *includes* are headers that the user names.

    Raises:
        CompileError: handlers are outside of the language, or have no counterpart in C; all mistakes at once.
        KprobesError: a place can't be probed.
    """
    places = Places(facts)
    shared = Shared(names, includes)
    specs: dict[str, MapSpec] = {}
    parts: list[Part] = []
    mistakes: list[CompileError] = []
    for probe in probes:
        groups, _ = places.groups(probe)
        try:
            parts += probe_parts(probe, groups, places, shared, specs)
        except CompileError as error:
            mistakes.append(error)
    if mistakes:
        raise all_mistakes(mistakes)
    values = {name: value for probe in probes for name, value in probe.settings}
    settings = [_setting(one, name, values.get(one.name, one.default)) for one, name in shared.settings.values()]
    return parts, [*settings, *shared.finished()]


def _setting(setting: Setting, name: str, value: SettingValue) -> SharedPart:
    """Return the module parameter that *setting* becomes."""
    kind, ctype = {"int": ("long", "long"), "bool": ("bool", "bool"), "str": ("charp", "char *")}[setting.kind]
    shown = c_string(value) if isinstance(value, str) else str(int(value))
    mode = "0444" if kind == "charp" else "0644"
    declared = f"{ctype}{name}" if ctype.endswith("*") else f"{ctype} {name}"
    text = f"static {declared} = {shown};\n" if value not in (0, False) or kind == "charp" else f"static {declared};\n"
    text += f"module_param({name}, {kind}, {mode});\n"
    text += f"MODULE_PARM_DESC({name}, {c_string(setting.doc or f'the setting {setting.name}')});\n"
    return SharedPart(name, text)
