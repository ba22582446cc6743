"""A world that remembers what it was asked, and one that answers from that: verdicts without the kernel they are of."""

from __future__ import annotations

from typing import Any

from kprobes.grammar.world import World
from kprobes.model import ctype


class Recorder:
    """Passes calls on to *inner*, and keeps each with its answer in *answers*."""

    def __init__(self, inner: object, answers: dict[str, Any]) -> None:
        self._inner = inner
        self._answers = answers

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        def call(*arguments: object) -> object:
            answer = method(*arguments)
            self._answers[key_of(name, arguments)] = encoded(answer)
            return answer

        return call


class Replay:
    """Answers as a `Recorder` was answered; a question that is new fails the test."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self._answers = answers

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: decoded(self._answers[key_of(name, arguments)])


def recording(world: World, answers: dict[str, Any]) -> World:
    """Return *world* with its symbols and types recorded in *answers*."""
    answers.update(calls={}, events=sorted(world.events), character_ids=sorted(world.character_ids), cpus=world.cpus)
    calls = answers["calls"]
    return World(
        Recorder(world.symbols, calls),
        world.files,
        Recorder(world.types, calls) if world.types is not None else None,
        world.cpus,
        world.events,
        world.character_ids,
    )


def replayed(answers: dict[str, Any], files: Any, *, typed: bool) -> World:
    """Return the world that *answers* were recorded in."""
    replay = Replay(answers["calls"])
    events, ids = frozenset(answers["events"]), frozenset(answers["character_ids"])
    return World(replay, files, replay if typed else None, answers["cpus"], events, ids)


def key_of(name: str, arguments: tuple[object, ...]) -> str:
    """Return a text for a call; a struct goes by its name and key."""
    words = [f"{one.name}#{one.key}" if isinstance(one, ctype.Struct) else str(one) for one in arguments]
    return " ".join([name, *words])


def encoded(value: object) -> Any:
    """Return *value* as JSON holds it: frozen data as [class, values...]."""
    if isinstance(value, tuple):
        return ["tuple", *map(encoded, value)]
    names = getattr(value, "__match_args__", None)
    if names is None:
        return value
    return [type(value).__name__, *(encoded(getattr(value, name)) for name in names)]


def decoded(value: Any) -> Any:
    """Return what `encoded` made *value* of."""
    if not isinstance(value, list):
        return value
    name, *values = value
    parts = [decoded(one) for one in values]
    return tuple(parts) if name == "tuple" else getattr(ctype, name)(*parts)
