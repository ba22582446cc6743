"""Handlers over the whole language, as Python source, and hits for them.

Hypothesis gives bytes, a string of them for each statement of the handler; every choice takes the next one, and zero
stands for the simplest. So it can leave statements out and simplify what is left, and what fails is shown small.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from hypothesis import strategies as st

from agree.expressions import Expressions
from agree.universe import PROTOTYPES, Handler, make_hits

AUGMENTED = ("+=", "-=", "^=", "*=", "|=", "&=", "//=", "%=", ">>=", "<<=")
MOST_LINES = 40


class Writer(Expressions):
    """Writes one handler."""

    def say(self, depth: int, line: str) -> None:
        self.lines.append("    " * depth + line)

    def body(self, depth: int, most: int) -> None:
        """Write one to *most* statements. What is assigned in a branch is known behind it only if it was before."""
        for number in range(self.pick(range(1, most + 1))):
            if number and len(self.lines) > MOST_LINES:
                break
            self.statement(depth)

    def inner(self, depth: int) -> None:
        """Write the body of something that may not run."""
        kept = self.numbers[:], self.variables[:], self.texts[:], self.nodes[:], self.pointers[:]
        self.body(depth + 1, 3 if depth < 3 else 1)
        self.numbers, self.variables, self.texts, self.nodes, self.pointers = kept
        if self.often(8):
            self.say(depth + 1, "return")
        elif self.in_loop and self.often(15):
            self.say(depth + 1, self.pick(("break", "continue")))

    def statement(self, depth: int) -> None:
        ways = [
            self.assign,
            self.assign,
            self.augment,
            self.add,
            self.keep,
            self.send,
            self.assign_text,
            self.assign_node,
            self.swap,
            self.tell,
            self.gather,
            self.gather,
            self.line_up,
            self.claim,
            self.drop,
        ]
        if depth < 4 and len(self.lines) < MOST_LINES:
            ways += [self.branch, self.branch, self.loop, self.protect]
        self.one_of(*ways)(depth)

    def assign(self, depth: int) -> None:
        value = self.number()
        name = self.target()
        self.say(depth, f"{name} = {value}")
        self.known(name)

    def augment(self, depth: int) -> None:
        if not self.variables:
            return self.assign(depth)
        operator = self.pick(AUGMENTED)
        value = str(self.pick(range(1, 40))) if operator in ("//=", "%=", ">>=", "<<=") else self.number(1)
        return self.say(depth, f"{self.pick(self.variables)} {operator} {value}")

    def swap(self, depth: int) -> None:
        one, other = self.target(), self.target()
        if one == other:
            return self.assign(depth)
        ways = [f"{self.number(1)}, {self.number(1)}", f"both({self.number(1)})"]
        if one in self.variables and other in self.variables:
            ways.insert(0, f"{other}, {one}")
        self.say(depth, f"{one}, {other} = {self.pick(ways)}")
        self.known(one), self.known(other)
        return None

    def assign_text(self, depth: int) -> None:
        name = self.pick(("t0", "t1"))
        self.say(depth, f"{name} = {self.text()}")
        if name not in self.texts:
            self.texts.append(name)

    def assign_node(self, depth: int) -> None:
        name = self.pick(("p0", "p1"))
        self.say(depth, f"{name} = {self.place(0)}")
        if name not in self.nodes:
            self.nodes += [name, name]
            self.pointers.append(name)

    def branch(self, depth: int) -> None:
        self.say(depth, f"if {self.place(0) if self.often(10) else self.truth()}:")
        self.inner(depth)
        if self.often(25):
            self.say(depth, f"elif {self.truth(1)}:")
            self.inner(depth)
        if self.often(40):
            self.say(depth, "else:")
            self.inner(depth)

    def loop(self, depth: int) -> None:
        if self.loops > 2:
            return self.assign(depth)
        self.loops += 1
        name = f"i{self.loops}"
        reduced = None
        if self.variables and self.often(25):
            reduced = self.pick(self.variables)
            self.say(depth, f"while {reduced} > {self.pick((0, 5, 100))}:")
            self.say(depth + 1, f"{reduced} >>= {self.pick(range(1, 9))}")
        elif self.pointers and self.often(25):
            pointer = self.pick(self.pointers)
            self.say(depth, f"while {pointer} is not None and {pointer}.tag & 7:")
            self.say(depth + 1, f"{pointer} = {pointer}.next")
        else:
            self.say(depth, f"for {name} in {self.turns()}:")
        kept = self.numbers[:], self.in_loop
        if reduced is None and self.lines[-1].endswith(":"):
            self.numbers += [name, name]
        self.in_loop = True
        self.inner(depth)
        self.numbers, self.in_loop = kept
        if self.often(20):
            self.say(depth, "else:")
            self.inner(depth)
        return None

    def turns(self) -> str:
        few = self.pick((1, 2, 3, 5, 8))
        ways = (
            f"range({few})",
            f"range(min({self.name()}, {few}))",
            f"range({self.name()} & 3)",
            f"range(2, {few} + 2)",
            f"range({few}, -1, -2)",
            f"(1, {self.name()}, {few})",
            "PORTS",
            f"range({self.name()} % 5)",
            f"{self.place(1)}.prio",
        )
        return self.pick(ways)

    def add(self, depth: int) -> None:
        amount = self.number(1)
        ways = (
            f"total.add({amount})",
            "total.add()",
            f"by_text.add(by={self.text()})",
            f"by_text.add({amount}, by={self.text()})",
            f"by_pair.add(by=({amount}, {self.text()}))",
            f"few.add({self.number(2)}, by={amount})",
            f"sizes.add({amount})",
            f"sizes.add({amount}, weight={self.pick((2, 3))})",
            f"spread.add({amount})",
            f"each.add({amount}, by={self.name()})",
            f"note(by_text, {amount}, {self.text()})",
        )
        self.say(depth, self.pick(ways))

    def keep(self, depth: int) -> None:
        key, value = self.number(2), self.number(1)
        ways = (
            f"seen[{key}] = {value}",
            f"seen[{key}] += {value}",
            f"seen[{self.name()} & 3] += 1",
            f"del seen[{key}]",
            f"wide[{key}, {self.text()}] = {value}, {self.text()}, {self.truth(1)}, {key}",
            f"small[{self.text()}] = {value}",
            f"del small[{self.text()}]",
            f"del wide[{key}, {self.text()}]",
        )
        self.say(depth, self.pick(ways))

    def gather(self, depth: int) -> None:
        value, name = self.number(1), self.name()
        ways = (
            f"sum.add({value}, by={name})",
            f"least.add({value})",
            f"most.add({value}, by={self.text()})",
            f"mean.add({value})",
            f"flat[{name} & 3] = {value}",
            f"flat[{name}] = {value}",
            f"flat[{name} & 3] += {value}",
            f"places[{name} & 3] = {value}, {self.text()}",
            f"recent[{name}, {self.text()}] = {name}, {value}",
        )
        self.say(depth, self.pick(ways))

    def line_up(self, depth: int) -> None:
        name, other = self.pick((("v0", "v1"), ("v2", "v3")))
        value, index = self.number(1), self.name()
        ways = (f"line.push(({value}, {index}))", f"{name}, {other} = line.pop()", f"{name}, t2 = places[{index} & 3]")
        line = self.pick(ways)
        self.say(depth, line)
        if " = line" in line:
            self.known(name), self.known(other)
        if " = places" in line:
            self.known(name)
            self.texts += [] if "t2" in self.texts else ["t2"]

    def claim(self, depth: int) -> None:
        self.say(depth, f'assert {self.truth(1)}, "claim {len(self.lines)}"')

    def protect(self, depth: int) -> None:
        self.say(depth, "try:")
        self.inner(depth)
        self.say(depth, "finally:")
        self.inner(depth)

    def drop(self, depth: int) -> None:
        name, other = self.pick((("v0", "v1"), ("v2", "v3")))
        self.say(depth, f"{name}, t2, b0, {other} = wide[{self.number(2)}, {self.text()}]")
        self.known(name), self.known(other)
        if "t2" not in self.texts:
            self.texts.append("t2")

    def shown(self) -> str:
        """Return something that an event can hold."""
        ways = (
            self.number,
            self.number,
            self.text,
            lambda: self.truth(1),
            lambda: self.place(1),
            lambda: f"hex({self.number(1)})",
            lambda: f"symbol({self.place(1)})",
            lambda: f"{self.place(1)}.text",
        )
        return self.one_of(*ways)()

    def send(self, depth: int) -> None:
        fields = [f"f{index}={self.shown()}" for index in range(self.pick((1, 2, 3, 4)))]
        self.say(depth, f"emit({', '.join(fields)})")

    def tell(self, depth: int) -> None:
        ways = (
            f"log(f'{{{self.name()}:>8}} and {{{self.name()}:#x}}')",
            f"log(f'at {{{self.pick(self.nodes)}.name}}')",
            "log('here')",
            f"emit({self.name()}, {self.pick(self.nodes)}.debt, {self.shown()})",
            "emit(**everything)",
        )
        self.say(depth, self.pick(ways))

    # The whole.

    def begin(self) -> None:
        self.say(0, f"def h({', '.join((*self.integers, 'text', 'node'))}, **everything):")

    def halve(self) -> None:
        """Write the `yield`."""
        self.say(1, "ret = yield")
        self.after_yield = True
        self.numbers += ["ret", "ret"]

    def end(self) -> str:
        """Show what the variables have become; return the source."""
        self.say(1, f"emit({', '.join(sorted({*self.variables, *self.texts, self.integers[0]}))})")
        return "\n".join(self.lines) + "\n"


class Choices:
    """Choices by bytes; *pick* takes one of several, the first where no bytes are left."""

    def __init__(self, content: bytes) -> None:
        self.content = iter(content)

    def pick(self, choices: Sequence[object]) -> object:
        return choices[next(self.content, 0) * len(choices) >> 8]

    def number(self) -> int:
        return int.from_bytes(bytes(next(self.content, 0) for _ in range(8)), "big")


CHUNK, HIT = 96, 48
_chunks = st.binary(min_size=CHUNK, max_size=CHUNK)
_PAIRS = 38  # of 256


def write(kind: str, prototype: str, before: Sequence[bytes], after: Sequence[bytes]) -> str:
    """Return a handler of one statement for each of the byte strings, those of *before* standing before a `yield`."""
    writer = Writer(Choices(b"").pick, kind, prototype)
    writer.begin()
    for part in (before, after):
        if part is after and kind == "uretprobe":
            writer.halve()
        for chunk in part:
            writer.pick = Choices(chunk).pick
            writer.statement(1)
    return writer.end()


def _handler(head: bytes, before: Sequence[bytes], after: Sequence[bytes], brought: bytes) -> Handler:
    kind = "uretprobe" if head[0] >= 256 - _PAIRS else "uprobe"
    prototype = tuple(PROTOTYPES)[head[1] % len(PROTOTYPES)]
    choices = Choices(brought)
    hits = make_hits(choices.pick, choices.number, len(brought) // HIT)
    return Handler(write(kind, prototype, before if kind == "uretprobe" else (), after), kind, prototype, hits)


@st.composite
def handlers(draw: st.DrawFn, hits: int) -> Handler:
    """A handler with *hits* hits."""
    head = draw(st.binary(min_size=2, max_size=2))
    before, after = draw(st.lists(_chunks, max_size=5)), draw(st.lists(_chunks, max_size=12))
    return _handler(head, before, after, draw(st.binary(min_size=hits * HIT, max_size=hits * HIT)))


def random_handler(source: random.Random, hits: int) -> Handler:
    """Return a handler as `handlers` makes them, where nothing need be shrunk."""
    before, after = ([source.randbytes(CHUNK) for _ in range(source.randrange(most))] for most in (4, 9))
    return _handler(source.randbytes(2), before, after, source.randbytes(hits * HIT))
