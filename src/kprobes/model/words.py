"""The words a handler can say, as importable objects: `from kprobes import comm, now`.

Handlers are compiled, so none of these ever runs in Python; using one outside a handler says so. What they are stands
in `model.builtins`; editors read the stub that is made of it.
"""

from __future__ import annotations

from kprobes.errors import UsageError
from kprobes.model.builtins import TABLE, Builtin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from inspect import Signature
    from typing import NoReturn

_ONLY_INSIDE = "put it into a function decorated with @kprobe, @kretprobe, @uprobe, @uretprobe or @tracepoint"


class Word:  # noqa: D101 - its docstring is that of the builtin
    # One builtin of the handler language, by name.

    __slots__ = ("__name__", "__qualname__", "_row")

    def __init__(self, row: Builtin) -> None:
        self.__name__ = self.__qualname__ = row.name
        self._row = row

    def __call__(self, *_: object, **__: object) -> NoReturn:  # noqa: D102
        self._refuse(f"{self.__name__}()")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_") or not self._row.fields:
            raise AttributeError(f"{self.__name__} has no attribute {name!r} outside of a handler", name=name, obj=self)
        self._refuse(f"{self.__name__}.{name}")

    def _refuse(self, what: str) -> NoReturn:
        raise UsageError(f"{what} means something only inside a handler, which is compiled", hint=_ONLY_INSIDE)

    def __repr__(self) -> str:
        return f"<builtin of handlers: {self._row.signature}>"

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        return self._row.docstring

    @property
    def __signature__(self) -> Signature:
        from ast import literal_eval
        from inspect import Parameter, Signature

        kinds = {"*": Parameter.VAR_POSITIONAL, "**": Parameter.VAR_KEYWORD}
        return Signature(
            [
                Parameter(
                    one.name.lstrip("*"),
                    kinds.get(one.name[: one.name.count("*")], Parameter.POSITIONAL_OR_KEYWORD),
                    default=literal_eval(one.default) if one.default else Parameter.empty,
                    annotation=one.type,
                )
                for one in self._row.parameters
            ],
            return_annotation=self._row.python_result,
        )


WORDS = {row.name: Word(row) for row in TABLE if not row.python}


def __getattr__(name: str) -> Word:
    word = WORDS.get(name)
    if word is None:
        raise AttributeError(f"there is no builtin {name!r}", name=name)
    return word
