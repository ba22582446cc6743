"""The options of a command: described as `argparse` takes them, and read without it where they are plainly right.

`argparse` takes 8 ms to import and set up, which is a good part of a start. What is unusual or wrong (`--help`, `-n5`,
an unknown option, a value that won't do) is handed to a real `argparse` parser of the same description, whose word is
final.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, _ArgumentGroup
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

_ACTIONS = ("store", "store_true", "append")


class Namespace:
    """What was given: each option an attribute."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...


class _UnusualError(Exception):
    """These words need the real parser."""


class Argument:
    """One option or positional argument, with the keywords that `add_argument` got."""

    __slots__ = ("action", "dest", "details", "group", "names")

    def __init__(self, names: tuple[str, ...], details: dict[str, Any], group: int) -> None:
        self.names = names
        self.details = details
        self.group = group
        self.action: str = details.get("action", "store")
        long = [name for name in names if name.startswith("--")]
        self.dest: str = details.get("dest") or (long or names)[0].lstrip("-").replace("-", "_")

    @property
    def is_option(self) -> bool:
        """Return whether it is one with a dash."""
        return self.names[0].startswith("-")

    def default(self) -> Any:
        """Return its value where it isn't given."""
        if self.action == "store_true":
            return False
        found = self.details.get("default")
        return list(found) if self.action == "append" and found is not None else found

    def value(self, word: str) -> Any:
        """Return what *word* means."""
        convert: Callable[[str], object] | None = self.details.get("type")
        try:
            value = convert(word) if convert is not None else word
        except Exception as error:  # whatever a converter raises, argparse knows how to report it
            raise _UnusualError from error
        if "choices" in self.details and value not in self.details["choices"]:
            raise _UnusualError
        return value


class Group:
    """Options under a heading of their own in `--help`."""

    def __init__(self, parser: Parser, number: int) -> None:
        self._parser = parser
        self._number = number

    def add_argument(self, *names: str, **details: Any) -> None:
        """Describe an argument as for `argparse`."""
        self._parser.arguments.append(Argument(names, details, self._number))


class Parser:
    """Describes the arguments of one command and reads them."""

    def __init__(self, prog: str, description: str, epilog: str) -> None:
        self.prog = prog
        self.description = description
        self.epilog = epilog
        self.arguments: list[Argument] = []
        self._groups: list[tuple[str, str]] = []

    def add_argument(self, *names: str, **details: Any) -> None:
        """Describe an argument as for `argparse`."""
        self.arguments.append(Argument(names, details, -1))

    def add_argument_group(self, title: str, description: str = "") -> Group:
        """Begin a group."""
        self._groups.append((title, description))
        return Group(self, len(self._groups) - 1)

    def error(self, message: str) -> NoReturn:
        """Refuse what was given.

        Raises:
            UsageError: always, with a hint at `--help`.
        """
        from kprobes.errors import UsageError

        raise UsageError(message, hint=f"`{self.prog} --help` shows the options and examples")

    def parse_args(self, words: Sequence[str]) -> Namespace:
        """Return what *words* say.

        Raises:
            UsageError: they are not understood. SystemExit: they asked for help.
        """
        try:
            return self._read(words)
        except _UnusualError:
            # options may stand between the other words, as everywhere in the shell
            return self._full().parse_intermixed_args(words, namespace=Namespace())

    def option_names(self) -> list[str]:
        """Return all options as they are written."""
        return ["-h", "--help", *(name for one in self.arguments if one.is_option for name in one.names)]

    def _read(self, words: Sequence[str]) -> Namespace:
        found = Namespace()
        for argument in self.arguments:
            if argument.action not in _ACTIONS or (argument.is_option and "nargs" in argument.details):
                raise _UnusualError
            setattr(found, argument.dest, argument.default())
        self._place(self._read_options(words, found), found)
        return found

    def _read_options(self, words: Sequence[str], found: Namespace) -> list[str]:
        """Set the options in *words*; return the other words, which must stand together."""
        options = {name: one for one in self.arguments if one.is_option for name in one.names}
        others: list[str] = []
        last = 0
        rest = iter(enumerate(words))
        for place, word in rest:
            if not word.startswith("-"):
                if others and last != place - 1:
                    raise _UnusualError
                others.append(word)
                last = place
                continue
            name, equals, text = word.partition("=")
            argument = options.get(name)
            if argument is None or (equals and (argument.action == "store_true" or not name.startswith("--"))):
                raise _UnusualError
            if argument.action == "store_true":
                setattr(found, argument.dest, True)
                continue
            if not equals:
                text = next(rest, (0, "-"))[1]
                if text.startswith("-"):
                    raise _UnusualError
            value = argument.value(text)
            if argument.action == "append":
                value = [*getattr(found, argument.dest), value]
            setattr(found, argument.dest, value)
        return others

    def _place(self, words: list[str], found: Namespace) -> None:
        """Give the *words* without dashes to the arguments that take them, in order."""
        for argument in self.arguments:
            if argument.is_option:
                continue
            count = argument.details.get("nargs")
            if count == "?" and not words:
                continue
            if not words or count not in (None, "?", "+"):
                raise _UnusualError
            if count == "+":
                setattr(found, argument.dest, [argument.value(word) for word in words])
                words = []
            else:
                setattr(found, argument.dest, argument.value(words[0]))
                words = words[1:]
        if words:
            raise _UnusualError

    def _full(self) -> ArgumentParser:
        """Return the real parser of the same description."""
        import argparse

        outer = self

        class Full(argparse.ArgumentParser):
            """Errors become ours, so that each has a hint and the same looks."""

            def error(self, message: str) -> NoReturn:
                outer.error(message)

        full = Full(
            prog=self.prog,
            description=self.description,
            epilog=self.epilog or None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        homes: list[ArgumentParser | _ArgumentGroup] = [
            full.add_argument_group(title, description or None) for title, description in self._groups
        ]
        for argument in self.arguments:
            home = full if argument.group < 0 else homes[argument.group]
            home.add_argument(*argument.names, **argument.details)
        return full
