"""Importing llvmlite without what it hardly uses: a quarter of the time that the import takes.

It imports `importlib.resources` to learn where its library lies, beside its own modules, and `platform` for machines
that aren't this one. While it is imported these are stand-ins, which become the real modules as soon as anything else
of them is asked for; then they are gone.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Later(ModuleType):
    """Stands for the module of its name until an attribute is asked for that it hasn't."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):  # the import machinery looks for these
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(__import__(self.__name__, fromlist=("",)), name)


class _Place:
    """A file of a package that lies in a directory; a context manager that gives its path."""

    def __init__(self, path: str) -> None:
        self._path = path

    def joinpath(self, name: str) -> _Place:
        return _Place(f"{self._path}/{name}")

    __truediv__ = joinpath

    def __enter__(self) -> str:
        return self._path

    def __exit__(self, *_: object) -> None:
        pass


class _Resources(_Later):
    """As `importlib.resources`, for packages that are directories."""

    def files(self, package: str) -> _Place:
        return _Place(sys.modules[package].__path__[0])

    def path(self, package: str, name: str) -> _Place:
        return self.files(package).joinpath(name)

    def as_file(self, place: _Place) -> _Place:
        return place


@contextmanager
def light_imports() -> Iterator[None]:
    """Put the stand-ins in place, where the real modules aren't loaded yet."""
    import importlib

    made = [
        kind(name)
        for kind, name in ((_Resources, "importlib.resources"), (_Later, "platform"))
        if name not in sys.modules
    ]
    before = vars(importlib).get("resources")
    for one in made:
        sys.modules[one.__name__] = one
    try:
        yield
    finally:
        for one in made:
            if sys.modules.get(one.__name__) is one:
                del sys.modules[one.__name__]
        if isinstance(vars(importlib).get("resources"), _Later):
            if before is None:
                del importlib.resources
            else:
                importlib.resources = before
