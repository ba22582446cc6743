"""Expressions of generated handlers: integers of all sorts, truth values, strings, pointers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agree.universe import PROTOTYPES
from kprobes.model.ctype import Pointer

NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    10,
    63,
    255,
    1000,
    4096,
    65536,
    -1,
    -7,
    1 << 31,
    (1 << 31) - 1,
    1 << 40,
    (1 << 63) - 1,
    1 << 63,
)
ARITHMETIC = ("+", "-", "*", "&", "|", "^", "//", "%", "<<", ">>")
COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
FIELDS = (
    "id",
    "weight",
    "small",
    "debt",
    "port",
    "shift",
    "tag",
    "sign",
    "on",
    "mode",
    "kind",
    "level",
    "mask",
    "wide",
    "top",
    "whole",
    "half",
    "at.x",
    "at.y",
    "at.z",
    "prio[0]",
    "prio[3]",
    "corners[0].y",
)
CASTS = ("u8", "s8", "u16", "s16", "u32", "int", "long", "u64")
LOCALS = ("v0", "v1", "v2", "v3")
WORDS = ("", "a", "bash", "sleep 10", "/etc/", "aaaaaaaaaaaaaaa", "é", "some longer text that is cut")
ALWAYS = ("min(now(), 1)", "(random() >> 32)", "(cpu() // 4096)", "(pid() - tid())", "uid()", "gid()")


class Expressions:
    """Writes expressions of what is known so far; *pick* chooses one of several."""

    def __init__(self, pick: Callable[[Sequence[object]], object], kind: str, prototype: str) -> None:
        self.pick = pick
        self.lines: list[str] = []
        self.kind = kind
        parameters = PROTOTYPES[prototype].parameters
        self.integers = [one.name for one in parameters if not isinstance(one.type, Pointer)]
        self.numbers = list(self.integers)  # what can be read as an integer
        self.variables: list[str] = []  # of these, what can be assigned
        self.texts: list[str] = []
        self.nodes: list[str] = ["node"]
        self.pointers: list[str] = []  # of these, what can be assigned
        self.loops = 0
        self.in_loop = False
        self.calls = 0
        self.after_yield = False

    def often(self, percent: int) -> bool:
        """Return true in about *percent* of 100 cases; the simplest is false."""
        return self.pick(range(100)) >= 100 - percent

    def one_of(self, *ways: Callable[..., str]) -> Callable[..., str]:
        return self.pick(ways)

    # Integers.

    def number(self, depth: int = 0) -> str:
        """Return an expression of an integer, a truth value among them."""
        if depth > 2:
            return self.one_of(self.name, self.literal)()
        ways = (
            self.name,
            self.name,
            self.literal,
            self.binary,
            self.binary,
            self.binary,
            self.field,
            self.field,
            self.unary,
            self.chosen,
            self.called,
            self.truth_value,
            self.looked_up,
            self.other,
        )
        return self.one_of(*ways)(depth)

    def name(self, depth: int = 0) -> str:
        return self.pick(self.numbers)

    def literal(self, depth: int = 0) -> str:
        found = self.pick(NUMBERS)
        return str(found) if found >= 0 else f"({found})"

    def binary(self, depth: int) -> str:
        operator = self.pick(ARITHMETIC)
        right = self.number(depth + 1)
        if operator in ("<<", ">>") and self.often(60):
            right = str(self.pick(range(64)))
        if operator in ("//", "%") and self.often(40):
            right = str(self.pick((1, 2, 3, 10, 64, 1000, 65536)))
        return f"({self.number(depth + 1)} {operator} {right})"

    def field(self, depth: int) -> str:
        return f"{self.place(depth)}.{self.pick(FIELDS)}"

    def unary(self, depth: int) -> str:
        return f"({self.pick(('-', '~', '+'))}{self.number(depth + 1)})"

    def chosen(self, depth: int) -> str:
        return f"({self.number(depth + 1)} if {self.truth(depth + 1)} else {self.number(depth + 1)})"

    def truth_value(self, depth: int) -> str:
        return f"({self.truth(depth + 1)})"

    def called(self, depth: int) -> str:
        self.calls += 1
        inner = self.number(depth + 1)
        calls = (
            f"min({inner}, {self.number(depth + 1)})",
            f"max({inner}, {self.number(depth + 1)}, 5)",
            f"abs({inner})",
            f"int({inner})",
            f"bool({inner})",
            f"double({inner})",
            f"clamp({inner}, 1, high=50)",
            f"clamp({inner})",
            f"ntohs({inner})",
            f"ntohl({inner})",
            f"cast({inner}, {self.pick(CASTS)!r})",
            f"hex({inner})",
        )
        if self.calls < 4 and depth == 0:
            calls += (f"first_above({inner})", f"last_of({self.place(1)})", f"told({inner})")
        return self.pick(calls)

    def looked_up(self, depth: int) -> str:
        key = self.number(depth + 1)
        ways = (
            f"seen[{key}]",
            f"seen.get({key}, {self.number(2)})",
            f"small.get({self.text()}, 3)",
            f"seen.get({self.name()} & 3, 0)",
            f"seen.pop({key}, 9)",
        )
        return self.pick(ways)

    def other(self, depth: int) -> str:
        place = self.place(depth)
        ways = (
            "LIMIT",
            "Kind.LARGE",
            "len(PORTS)",
            "MODE_FAST",
            f"deref({place}, {self.pick(CASTS)!r})",
            f"deref(text + {self.pick(range(4))}, 'u8')",
            f"({place} - node)",
            f"int({place})",
            f"deref(int({place}) + {self.pick((0, 4, 13, 150))}, 'u32')",
            f"cast({place}, 'u32 *')[{self.pick((0, 1, 5))}]",
            *ALWAYS,
        )
        own = f"cast({place}, Own)"
        ways += (
            f"{own}.items[{self.pick((0, 1))}].y",
            f"{own}.high",
            f"{own}.low",
            f"{own}.rest[{self.name()} & 3]",
            f"{place}.prio[{self.name()}]",
            f"{place}.prio[{self.name()} & 3]",
            f"len({self.text()})",
            f"flat[{self.name()} & 3]",
            f"flat[{self.name()}]",
            "sizeof('struct node')",
            f"container_of({place} + 4, Own, 'tag').id",
        )
        if self.after_yield:
            ways = ("retval", "ret", *ways)
        return self.pick(ways)

    # Truth values.

    def truth(self, depth: int = 0) -> str:
        """Return an expression used for its truth."""
        ways = (self.comparison, self.comparison, self.number, self.text_truth, self.pointer_truth)
        if depth < 2:
            ways += (self.logic, self.logic, self.chain, self.membership, self.negation, self.bound)
        return self.one_of(*ways)(depth + 1)

    def comparison(self, depth: int) -> str:
        return f"{self.number(depth)} {self.pick(COMPARISONS)} {self.number(depth)}"

    def logic(self, depth: int) -> str:
        return f"({self.truth(depth)} {self.pick(('and', 'or'))} {self.truth(depth)})"

    def chain(self, depth: int) -> str:
        links = (f"{self.pick(COMPARISONS)} {self.number(depth)}" for _ in range(2))
        return f"{self.number(depth)} {' '.join(links)}"

    def negation(self, depth: int) -> str:
        return f"not {self.number(depth)}"

    def bound(self, depth: int) -> str:
        if self.in_loop or depth > 1:
            return self.comparison(depth)
        name = self.target()
        found = f"({name} := {self.number(depth)}) {self.pick(COMPARISONS)} {self.literal()}"
        self.known(name)
        return found

    def membership(self, depth: int) -> str:
        negated = self.pick(("", "not "))
        ways = (
            f"{self.number(depth)} {negated}in ({self.number(depth)}, {self.literal()}, 22)",
            f"{self.number(depth)} {negated}in PORTS",
            f"{self.number(depth)} {negated}in seen",
            f"{self.text()} {negated}in ({self.word()}, {self.word()})",
            f"({self.number(2)}, {self.text()}) {negated}in wide",
        )
        return self.pick(ways)

    def text_truth(self, depth: int) -> str:
        operator = self.pick(("==", "!="))
        ways = (
            f"{self.text()} {operator} {self.word()}",
            f'{self.text()}.startswith("{self.pick(WORDS[1:])}")',
            f"{self.text()} {operator} {self.text()}",
        )
        return self.pick(ways)

    def pointer_truth(self, depth: int) -> str:
        place = self.place(1)
        ways = (
            f"{place} is None",
            f"{place} is not None",
            f"{place} == {self.place(1)}",
            f"{place} != node",
            f"bool({place})",
        )
        return f"({self.pick(ways)})"

    # Strings and pointers.

    def word(self) -> str:
        return "SHELL" if self.often(10) else f'"{self.pick(WORDS)}"'

    def quoted(self) -> str:
        return f'"{self.pick(WORDS[1:])}"'

    def text(self, depth: int = 0) -> str:
        """Return an expression of a string that is computed."""
        if depth < 2 and self.often(25):
            return self.made_text(depth + 1)
        return self.read_text()

    def made_text(self, depth: int) -> str:
        """Return a string that is made of others and of numbers."""
        low, high = self.pick((0, 1, 2, 5, -3)), self.pick((1, 3, 9, -1, 100))
        name, other = self.pick(self.integers), self.pick(self.integers)
        ways = (
            f"{self.text(depth)}[{low}:{high}]",
            f"{self.text(depth)}[{low}:]",
            f"{self.text(depth)}[{name} & 7:]",
            f"{self.text(depth)}[:{name}]",
            f"text.string(9)[{low}]",
            f"text.string(9)[{name} & 15]",
            f'f"{{{name}}}"',
            f'f"{{{name}:x}}/{{{other}:#x}}"',
            f'f"{{{self.pick(self.nodes)}.text.string(8)}}:{{{name}:08x}}"'.replace('"', "'"),
            f'f"{{{self.pick(self.nodes)}.name}}{{{self.pick(self.nodes)}.on}}"',
            f"({self.text(2)} + {self.text(2)})",
        )
        return self.pick(ways)

    def read_text(self) -> str:
        """Return a string that is read."""
        place = self.place(1)
        ways = (
            f"{place}.name",
            f"{place}.text.string({self.pick((2, 5, 8, 16, 33, 64))})",
            "text.string(12)",
            "text.string()",
            f"string(text, {self.pick((3, 9, 24))})",
            "comm()",
            f"user_string(int({place}) + 57, 7)",
            f"label({place})",
        )
        return self.pick((*self.texts, *ways))

    def place(self, depth: int) -> str:
        """Return an expression of a pointer to a node."""
        name = self.pick(self.nodes)
        if depth > 1 or self.often(50):
            return name
        ways = (
            f"{name}.next",
            f"{name}.peer",
            f"{name}.next.next",
            f"({name} + 1)",
            f"cast({name}.data, 'struct node *')",
            f"cast(int({name}), 'struct node *')",
            f"({name}.next if {self.number(2)} else {name}.peer)",
        )
        return self.pick(ways)

    # Variables.

    def target(self) -> str:
        """Return a variable to assign to; `known` makes it readable."""
        return self.pick(LOCALS)

    def known(self, name: str) -> None:
        if name not in self.variables:
            self.variables.append(name)
            self.numbers += [name, name]  # what was computed is of more interest
