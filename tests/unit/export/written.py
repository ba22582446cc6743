"""Handlers of the language that modules are translated from, made up at random: statement by statement, with functions
that they call."""

from __future__ import annotations

import random

FIELDS = ("id", "weight", "small", "debt", "port", "shift", "tag", "sign", "on", "mode", "whole", "half", "at.x",
          "at.y", "at.z", "prio[1]", "corners[0].y")  # fmt: skip
LITERALS = (0, 1, 2, 3, 7, 10, 63, 255, 4096, -1, -7, 1 << 31, (1 << 31) - 1, 1 << 40, (1 << 63) - 1, 1 << 63)


# What every handler may count in; the names are those of the maps, too.
MAPS = """\
from kprobes import Array, Avg, Count, Histogram, Max, Min, Sum

ring = Array("ring", 8)
every, total = Count("every"), Sum("total")
least, most, mean = Min("least"), Max("most"), Avg("mean")
"""


class Writer:
    """Writes one handler, with the functions that it calls before it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.lines: list[str] = []
        self.known = ["i", "n", "c", "u"]
        self.variables = [f"v{number}" for number in range(4)]
        self.nodes = ["node"]
        self.functions: dict[str, str] = {}  # what each one gives, by its name
        self.names = seed

    def text(self, name: str) -> str:
        """Return a file with the handler *name* and its functions."""
        for kind in self.random.sample(("number", "node", "text", "none"), self.random.randint(0, 3)):
            self.function(f"{name}_{kind}", kind)
        self.lines.append(f"def {name}(i, n, c, u, text, node):")
        self.lines.append(f"    other = {self.place()}")
        self.nodes.append("other")
        self.lines.append(f"    label = {self.string()}")
        for variable in self.variables:
            self.lines.append(f"    {variable} = {self.number(3)}")
            self.known.append(variable)
        for _ in range(self.random.randint(1, 5)):
            self.statement(1)
        values = ", ".join(f"f{number}={self.value()}" for number in range(4))
        self.lines.append(f"    emit({values}, v0=v0, v1=v1, v2=v2, v3=v3, label=label)")
        return "\n".join([MAPS, *self.lines, ""])

    def function(self, name: str, kind: str) -> None:
        """Write a function that gives a number, a node, a string, or nothing but what it does."""
        kept = self.known, self.variables, self.nodes
        self.known, self.variables, self.nodes = ["a", "b"], ["b", "w"], ["node"]
        default = self.random.choice(LITERALS)
        given = "a, b, label, node" if kind == "none" else f"a, node, label, b={default}"
        self.lines.append(f"def {name}({given}):\n    w = {self.number(2)}")
        self.known += ["w"]
        for _ in range(self.random.randint(0, 2)):
            self.statement(1)
        if kind == "number":
            self.lines.append(f"    if {self.truth(2)}:\n        return {self.number(2)}")
            self.lines.append(f"    return {self.value()}")
        elif kind == "node":
            self.lines.append(f"    if {self.truth(1)}:\n        node = {self.place()}")
            self.lines.append(f"    return {self.place()}")
        elif kind == "text":
            self.lines.append(f"    if {self.truth(1)}:\n        return {self.string()}")
            self.lines.append(f"    return {self.random.choice(('node.text.string(16)', 'label'))}")
        else:
            self.lines.append(f"    if {self.truth(1)}:\n        return")
            self.lines.append(f"    emit(a=a, b={self.value()}, w=w, label=label)")
        self.known, self.variables, self.nodes = kept
        self.functions[kind] = name

    def call(self, kind: str, depth: int) -> str:
        """Return a call of the function that gives *kind*."""
        label = self.random.choice(("comm()", '"bash"', f"{self.nodes[0]}.text.string(16)"))
        if kind == "none":
            return f"{self.functions[kind]}({self.number(depth)}, {self.number(depth)}, label, node={self.place(1)})"
        after = self.random.choice(("", f", {self.number(depth)}", f", b={self.number(depth)}"))
        label = "label" if kind != "text" and "label" in self.known else label
        return f"{self.functions[kind]}({self.number(depth)}, {self.place(1)}, {label}{after})"

    def value(self) -> str:
        return self.number(2) if self.random.random() < 0.7 else self.truth(2)

    def string(self) -> str:
        """Return a string of at most 15 bytes."""
        if "text" in self.functions and self.random.random() < 0.5:
            return self.call("text", 1)
        return self.random.choice(("node.text.string(16)", f"{self.nodes[-1]}.name", "comm()"))

    def statement(self, depth: int) -> None:
        pad = "    " * depth
        kind = self.random.randrange(10 if depth < 3 else 2)
        name = self.random.choice(self.variables)
        if kind == 0:
            self.lines.append(f"{pad}{name} = {self.number(2)}")
        elif kind == 1:
            operator = self.random.choice(("+=", "-=", "*=", "&=", "|=", "^=", "//=", "%=", ">>="))
            plain = operator in ("//=", "%=", ">>=")
            amount = str(self.random.randint(1, 40)) if plain else self.number(1)
            self.lines.append(f"{pad}{name} {operator} {amount}")
        elif kind in (2, 3, 4):
            self.lines.append(f"{pad}if {self.truth(2)}:")
            self.statement(depth + 1)
            if kind == 3:
                self.lines.append(f"{pad}elif {self.truth(1)}:")
                self.statement(depth + 1)
            if kind >= 3:
                self.lines.append(f"{pad}else:")
                self.statement(depth + 1)
        elif kind == 5:
            self.lines.append(f"{pad}for t{depth} in range({self.random.randint(1, 6)}):")
            self.known.append(f"t{depth}")
            self.statement(depth + 1)
            self.known.remove(f"t{depth}")
            if self.random.random() < 0.3:
                self.lines.append(
                    f"{pad}    if {self.truth(1)}:\n{pad}        {self.random.choice(('break', 'continue'))}"
                )
        elif kind == 6 and "none" in self.functions:
            self.lines.append(f"{pad}{self.call('none', 1)}")
        elif kind == 8:
            self.count(pad)
        elif kind == 9 and len(self.nodes) > 1:  # in a handler: it has two
            self.lines.append(f'{pad}assert {self.truth(2)}, "it holds"')
        else:
            self.lines.append(f"{pad}w{depth} = {self.random.randint(0, 9)}")
            self.lines.append(f"{pad}while w{depth} > 0 and {self.truth(1)}:\n{pad}    w{depth} -= 1")
            self.statement(depth + 1)

    def count(self, pad: str) -> None:
        """Write an addition to a map."""
        map_ = self.random.choice(("ring", "every", "total", "least", "most", "mean"))
        if map_ == "ring":
            index = f"{self.random.choice(self.known)} & {self.random.choice((7, 15))}"
            self.lines.append(f"{pad}ring[{index}] {self.random.choice(('=', '+='))} {self.number(2)}")
        else:
            self.lines.append(f"{pad}{map_}.add({self.number(2)})")

    def place(self, most: int = 2) -> str:
        found = self.random.choice(self.nodes)
        if "node" in self.functions and most == 2 and self.random.random() < 0.2:
            return self.call("node", 1)
        for _ in range(self.random.choice((0, 0, 1, 1, most))):
            found += self.random.choice((".next", ".peer"))
        return found

    def number(self, depth: int) -> str:
        choice = self.random.random()
        if depth == 0 or choice < 0.25:
            return self.random.choice((*self.known, str(self.random.choice(LITERALS)), self.field()))
        if choice < 0.6:
            operator = self.random.choice("+-*&|^") if self.random.random() < 0.7 else self.random.choice(("//", "%"))
            return f"({self.number(depth - 1)} {operator} {self.number(depth - 1)})"
        if choice < 0.7:
            operator, count = self.random.choice(("<<", ">>")), self.random.choice((0, 1, 7, 63, self.known[-1]))
            return f"({self.number(depth - 1)} {operator} {count})"
        if choice < 0.77:
            return f"({self.random.choice('-~')}{self.number(depth - 1)})"
        if choice < 0.84:
            return f"({self.number(depth - 1)} if {self.truth(depth - 1)} else {self.number(depth - 1)})"
        if choice < 0.86:
            return f"ring[{self.random.choice(self.known)} & 15]"
        if choice < 0.92 and "number" in self.functions:
            return self.call("number", depth - 1)
        inner = self.number(depth - 1)
        kind = self.random.choice(("u8", "s16", "int", "u64"))
        return self.random.choice(
            (
                f"int({inner})",
                f'cast({inner}, "{kind}")',
                f"abs(int({inner}))",
                f"min(int({inner}), int({self.known[0]}))",
            )
        )

    def field(self) -> str:
        return f"{self.place(1)}.{self.random.choice(FIELDS)}"

    def truth(self, depth: int) -> str:
        choice = self.random.random()
        if depth == 0 or choice < 0.5:
            sign = self.random.choice(("==", "!=", "<", "<=", ">", ">="))
            return f"{self.number(min(depth, 1))} {sign} {self.number(min(depth, 1))}"
        if choice < 0.7:
            return f"({self.truth(depth - 1)} {self.random.choice(('and', 'or'))} {self.truth(depth - 1)})"
        if choice < 0.8:
            return f"not ({self.truth(depth - 1)})"
        return self.random.choice(
            (f"{self.place()} is not None", f"{self.known[1]} in (1, 2, {self.random.choice(LITERALS)})",
             f"0 < {self.known[-1]} <= 9", 'label == "bash"', 'label.startswith("/e")', '"a" in label', "bool(label)"),
        )  # fmt: skip
