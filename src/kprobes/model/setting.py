"""Settings of a script: module-level values that handlers use like constants, and that each attach may set anew."""

from __future__ import annotations

from kprobes.errors import UsageError
from kprobes.frozen import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeGuard

    SettingValue = int | bool | str

_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_KINDS = {"int": "an integer", "bool": "true or false", "str": "a string"}
_LOWEST, _HIGHEST = -(1 << 63), (1 << 64) - 1


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """A value by *name* that is *default* unless the attach says otherwise: `min_us = Setting("min_us", 100)`.

    An int, a bool or a str, by its default. In a handler it stands for its value, known when the handler is compiled;
    `attach(handler, settings={"min_us": 5})` and `kprobes run FILE.py --set min_us=5` give another one. *doc* is what
    `kprobes run FILE.py --settings` shows.
    """

    name: str
    default: SettingValue
    doc: str = ""

    @property
    def kind(self) -> str:
        """Return `int`, `bool` or `str`.

        Raises:
            UsageError: the default is none of these.
        """
        for kind in (bool, int, str):
            if isinstance(self.default, kind):
                return kind.__name__
        what = f"the setting {self.name!r} is a {type(self.default).__name__}"
        raise UsageError(what, hint="its default is an int, a bool or a str")

    def checked(self, value: object) -> SettingValue:
        """Return *value* if the setting can have it.

        Raises:
            UsageError: it is of another type, or no integer of 64 bits.
        """
        if not _is_value(value) or Setting(self.name, value).kind != self.kind:
            raise self._refusal(value, f"its default is {self.default!r}")
        if self.kind == "int" and not _LOWEST <= int(value) <= _HIGHEST:
            raise self._refusal(value, "integers have 64 bits in a handler")
        return value

    def parsed(self, text: str) -> SettingValue:
        """Return the value that *text* spells.

        Raises:
            UsageError: it spells none of this setting's type.
        """
        if self.kind == "str":
            return text
        try:
            return _WORDS[text.lower()] if self.kind == "bool" else self.checked(int(text, 0))
        except (KeyError, ValueError):
            hint = "true or false" if self.kind == "bool" else "a whole number: 100, -1, 0x40"
            raise self._refusal(text, hint) from None

    def _refusal(self, value: object, hint: str) -> UsageError:
        return UsageError(f"the setting {self.name!r} takes {_KINDS[self.kind]}, not {value!r}", hint=hint)


def _is_value(value: object) -> TypeGuard[SettingValue]:
    return isinstance(value, int | str)
