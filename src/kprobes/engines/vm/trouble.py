"""Errors that cross the channel: taken apart on one side, raised as the same class on the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes import errors

if TYPE_CHECKING:
    from kprobes.engines.vm.frames import Head


def describe_error(error: BaseException) -> Head:
    """Return *error* as data. What is no error of kprobes becomes an `InternalError` that carries its traceback."""
    if not isinstance(error, errors.KprobesError):
        from traceback import format_exception

        text = "".join(format_exception(error))
        return {
            "class": "InternalError",
            "data": {"what": f"internal error in the guest: {text}", "hint": errors.REPORT},
        }
    data = {name: value for name, value in vars(error).items() if _is_plain(value)}
    number = error.errno if isinstance(error, OSError) else None
    return {"class": type(error).__name__, "data": data, "errno": number}


def rebuild_error(described: object) -> errors.KprobesError:
    """Return the error that `describe_error` took apart; an `InternalError` where the description is malformed."""
    if not isinstance(described, dict) or not isinstance(described.get("data"), dict):
        return errors.InternalError("the guest reported an error that can't be read")
    data = {str(name): _frozen(value) for name, value in described["data"].items()}
    kind = getattr(errors, str(described.get("class")), None)
    if not (isinstance(kind, type) and issubclass(kind, errors.KprobesError)) or not isinstance(data.get("what"), str):
        return errors.InternalError("the guest reported an error of no known class")
    error = kind.__new__(kind)
    Exception.__init__(error, data["what"])
    vars(error).update(data)
    vars(error).setdefault("hint", "")
    number = described.get("errno")
    if isinstance(error, OSError) and isinstance(number, int):
        error.errno = number
    return error


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(part) for part in value)
    return value is None or isinstance(value, str | int | float)


def _frozen(value: object) -> object:
    return tuple(_frozen(part) for part in value) if isinstance(value, list) else value
