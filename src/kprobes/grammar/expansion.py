"""Arguments that stand for others (since 6.3): `$arg*`, `$argN` with its parameter's name, `:%pd` and `:%pD`.

Source: Documentation/trace/kprobetrace.rst, and the answers of the kernels.
"""

from __future__ import annotations

from errno import E2BIG, ENOENT, ENOMEM

from kprobes.grammar.facts import MAX_DENTRY_EXPANSION, MAX_EXPANSION
from kprobes.grammar.numbers import leading_decimal
from kprobes.grammar.refusal import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.grammar.facts import Dialect
    from kprobes.grammar.scan import Site
    from kprobes.model.ctype import Types

ALL = "$arg"
DENTRIES = ":%p"
DENTRY = (":%pd", ":%pD")


def expand(words: Sequence[str], site: Site, dialect: Dialect) -> tuple[Sequence[str], bool]:
    """Return *words* with those that stand for others replaced, as far as the prototype is known.

    The second value tells whether the error log shows them so: the kernel replaces dentries in the line itself, unless
    it has copied the line for `$arg`.

    Raises:
        Refused: as the kernel does.
    """
    given = words
    text = " ".join(words)
    if ALL in text and any(word.startswith(ALL) for word in words):
        words = _expand_arguments(words, site, saturating=dialect.saturating)
    if DENTRIES not in text or not any(word.endswith(DENTRY) for word in words):
        return words, False
    return _expand_dentries(words, site.types, dialect), words is given


def _expand_arguments(words: Sequence[str], site: Site, *, saturating: bool) -> Sequence[str]:
    star = _find_star(words, site)
    function = site.function
    if function is None or not function.parameters:
        return words  # the parser refuses a star that is left
    found: list[str] = []
    room = _Room()
    for at, word in enumerate(words):
        room.index = at + 2
        if at == star:
            found += [room.take(parameter.name) for parameter in function.parameters]
        elif word.startswith(ALL):
            number, length = leading_decimal(word[len(ALL) :], saturating=saturating)
            suffix = word[len(ALL) + length :]
            if suffix and suffix[0] != ":":
                raise Refused("BAD_VAR", at + 2, 0, ENOENT)
            if not number:
                raise Refused("BAD_ARG_NUM", at + 2)
            # below zero the kernel reads what stands before its array: nobody can tell what
            if not 0 < number <= len(function.parameters):
                raise Refused("NO_BTFARG", at + 2, 0, ENOENT)
            found.append(room.take(f"{function.parameters[number - 1].name}{suffix}"))
        else:
            found.append(word)
    return found


def _find_star(words: Sequence[str], site: Site) -> int:
    """Return the index of `$arg*`, -1 where there is none; check how the `$arg` are written."""
    star = -1
    for at, word in enumerate(words):
        if not word.startswith(ALL):
            continue
        if not (site.at_entry or site.at_return):
            raise Refused("NOFENTRY_ARGS", at + 2)
        letter = word[4:5]
        if "0" <= letter <= "9":
            continue
        if letter != "*":
            raise Refused("BAD_VAR", at + 2)
        if star >= 0:
            raise Refused("DOUBLE_ARGS", at + 2)
        star = at
    return star


class _Room:
    """The kernel's buffer for expanded arguments."""

    def __init__(self) -> None:
        self.index = 0
        self._left = MAX_EXPANSION

    def take(self, text: str) -> str:
        if len(text) >= self._left:
            raise Refused("ARGS_2LONG", self.index, 0, E2BIG)
        self._left -= len(text) + 1
        return text


def _expand_dentries(words: Sequence[str], types: Types | None, dialect: Dialect) -> list[str]:
    name_at, dentry_at = _offsets(types, dialect)
    left = MAX_DENTRY_EXPANSION
    found = []
    for word in words:
        if not word.endswith(DENTRY):
            found.append(word)
            continue
        name, equals, term = word[:-4].partition("=")
        inner = term if equals else name
        if word[-1] == "D":
            inner = f"+{dentry_at:#x}({inner})"
        text = f"{name if equals else ''}{equals}+0x0(+{name_at:#x}({inner})):string"
        if len(text) >= left:
            raise Refused("", number=ENOMEM)
        left -= len(text) + 1
        found.append(text)
    return found


def _offsets(types: Types | None, dialect: Dialect) -> tuple[int, int]:
    """Return the offsets of `d_name.name` in a dentry and of `f_path.dentry` in a file: by *types*, or as usual."""
    usual = (0x28, 0x48 if dialect.limit_message else 0xA0)
    if types is None:
        return usual
    dentry = _offset(types, "dentry", "d_name", "name")
    file = _offset(types, "file", "f_path", "dentry")
    return (dentry if dentry is not None else usual[0], file if file is not None else usual[1])


def _offset(types: Types, struct: str, *names: str) -> int | None:
    from kprobes.model.ctype import Struct

    current, bits = types.struct(struct), 0
    for name in names:
        member = types.member(current, name) if isinstance(current, Struct) else None
        if member is None:
            return None
        bits += member.bit_offset
        current = member.type  # type: ignore[assignment]
    return bits // 8
