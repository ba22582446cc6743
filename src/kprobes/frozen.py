"""Frozen, slotted dataclasses that are cheap to define: for the modules that every start imports.

`dataclasses` takes 5 ms to import (it needs `inspect`) and 1 ms a class, since it writes and compiles each class's
methods; a command that finds its plan in the cache would spend half of its start on that. Here all classes share their
methods, which makes a class cost 0.02 ms and an instance 2 µs instead of 1.

To a type checker these are dataclasses. To `dataclasses.replace`, `fields` and `astuple` they are, too: what these ask
for is made when they first ask.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass as dataclass
    from dataclasses import field as field
    from dataclasses import replace as replace
    from typing import Any, TypeVar

    T = TypeVar("T")

_set = object.__setattr__


def _init(self: Any, *values: object, **named: object) -> None:
    names = self.__match_args__
    if named or len(values) != len(names):
        values = _all_values(type(self), values, named)
    for name, value in zip(names, values, strict=True):
        _set(self, name, value)


def _all_values(kind: Any, values: tuple[object, ...], named: dict[str, object]) -> tuple[object, ...]:
    """Return the value of each field: those given by place, then those given by name, with the defaults."""
    names = kind.__match_args__
    if len(values) > len(names):
        raise TypeError(f"{kind.__name__} takes {len(names)} values but {len(values)} were given")
    found = list(values)
    for name in names[len(values) :]:
        if name in named:
            found.append(named.pop(name))
        elif name in kind._defaults:
            found.append(kind._defaults[name])
        elif name in kind._factories:
            found.append(kind._factories[name]())
        else:
            raise TypeError(f"{kind.__name__} needs a value for {name!r}")
    if named:
        raise TypeError(f"{kind.__name__} does not take {', '.join(map(repr, named))}, or has it already")
    return tuple(found)


def _values(self: Any) -> tuple[object, ...]:
    return tuple([getattr(self, name) for name in self.__match_args__])


def _repr(self: Any) -> str:
    inside = ", ".join([f"{name}={getattr(self, name)!r}" for name in self.__match_args__])
    return f"{type(self).__qualname__}({inside})"


def _eq(self: Any, other: Any) -> object:
    if other.__class__ is self.__class__:
        return all(getattr(self, name) == getattr(other, name) for name in self._compared)
    return NotImplemented


def _hash(self: Any) -> int:
    return hash(tuple([getattr(self, name) for name in self._compared]))


def _no_set(self: Any, name: str, value: object) -> None:  # noqa: ARG001 - the signature of __setattr__
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _no_delete(self: Any, name: str) -> None:  # noqa: ARG001 - the signature of __delattr__
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _set_state(self: Any, values: tuple[object, ...]) -> None:
    for name, value in zip(self.__match_args__, values, strict=True):
        _set(self, name, value)


class _Fields:
    """The `__dataclass_fields__` of a class, made by a real dataclass of the same shape when first asked for."""

    def __get__(self, _instance: object, owner: type) -> dict[str, Any]:
        from dataclasses import MISSING, field, make_dataclass

        defaults: dict[str, object] = owner.__dict__["_defaults"]
        factories = owner.__dict__["_factories"]
        compared = owner.__dict__["_compared"]
        shape: list[tuple[str, Any, Any]] = [
            (
                name,
                kind,
                field(
                    default=defaults.get(name, MISSING),
                    default_factory=factories.get(name, MISSING),
                    compare=name in compared,
                ),
            )
            for name, kind in owner.__annotations__.items()
        ]
        fields: dict[str, Any] = make_dataclass(owner.__name__, shape, frozen=True).__dict__["__dataclass_fields__"]
        type.__setattr__(owner, "__dataclass_fields__", fields)
        return fields


if not TYPE_CHECKING:

    class field:  # noqa: N801 - the name in dataclasses
        """A default that does not count when two are compared, or one that each instance has made for itself."""

        def __init__(
            self, *, default: object = None, default_factory: Callable[[], object] | None = None, compare: bool = True
        ) -> None:
            self.default = default
            self.factory = default_factory
            self.compare = compare

    _SHARED = {
        "__init__": _init,
        "__repr__": _repr,
        "__setattr__": _no_set,
        "__delattr__": _no_delete,
        "__getstate__": _values,
        "__setstate__": _set_state,
        "__dataclass_fields__": _Fields(),
    }
    _COMPARED = {"__eq__": _eq, "__hash__": _hash}

    def dataclass(*, frozen: bool, slots: bool, eq: bool = True) -> Callable[[type[T]], type[T]]:
        """Return the decorator of a class whose annotations are its fields; defaults must be immutable."""
        assert all((frozen, slots)), "other classes are not made here"

        def make(cls: type[T]) -> type[T]:
            body = dict(cls.__dict__)
            names = tuple(body.get("__annotations__", ()))
            shared = _SHARED | _COMPARED if eq else _SHARED
            given = {name: body.pop(name) for name in names if name in body}
            special = {name: one for name, one in given.items() if type(one) is field}
            factories = {name: one.factory for name, one in special.items() if one.factory}
            silent = {name for name, one in special.items() if not one.compare}
            defaults = given | {name: one.default for name, one in special.items()}
            defaults = {name: one for name, one in defaults.items() if name not in factories}
            for name in ("__dict__", "__weakref__"):
                body.pop(name, None)
            methods = {**shared, **body}  # what the class defines itself stays
            return type(cls)(
                cls.__name__,
                cls.__bases__,
                {
                    **methods,
                    "__slots__": names,
                    "__match_args__": names,
                    "_compared": tuple([name for name in names if name not in silent]),
                    "_defaults": defaults,
                    "_factories": factories,
                },
            )

        return make

    def replace(one: T, /, **changes: object) -> T:
        """Return *one* with *changes* to its fields."""
        if not hasattr(one, "_factories"):  # none of ours
            return type(one)(**{**{name: getattr(one, name) for name in one.__match_args__}, **changes})
        made = object.__new__(type(one))
        for name in one.__match_args__:
            _set(made, name, changes.pop(name) if name in changes else getattr(one, name))
        if changes:
            raise TypeError(f"{type(one).__name__} has no {', '.join(map(repr, changes))}")
        return made
