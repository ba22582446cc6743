"""Handlers at random, as source: assignments, branches, bounded loops, maps and texts over a few variables."""

from __future__ import annotations

NAMES = ("a", "b", "c", "d")
ARITHMETIC = ("+", "-", "*", "//", "%", "&", "|", "^", "<<", ">>")
COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
NUMBERS = (0, 1, 2, 3, 5, 10, 63, 255, 1000, 65536, -1, -7, 1 << 31, 1 << 40)


class Source:
    """One handler; `text` is its source."""

    def __init__(self, random):
        self.random = random
        self.lines = ["def h():", *(f"    {name} = arg({n + 1})" for n, name in enumerate(NAMES))]
        self.loops = 0
        self.body(1, random.randint(4, 8))
        self.lines.append(f"    emit({', '.join(NAMES)})")
        self.text = "\n".join(self.lines) + "\n"

    def say(self, depth, line):
        self.lines.append("    " * depth + line)

    def number(self, depth=0):
        choice = self.random.random()
        if choice < 0.45:
            return self.random.choice(NAMES)
        if choice < 0.65 or depth > 2:
            return str(self.random.choice(NUMBERS))
        if choice < 0.92:
            operator = self.random.choice(ARITHMETIC)
            right = self.number(depth + 1)
            if operator in ("<<", ">>"):
                right = str(self.random.randrange(64))
            if operator in ("//", "%") and right.isdigit() and int(right) == 0:
                right = self.random.choice(NAMES)
            return f"({self.variable(depth + 1)} {operator} {right})"
        return f"({self.number(depth + 1)} if {self.truth(depth + 1)} else {self.number(depth + 1)})"

    def variable(self, depth):
        """Return a number that is not computed of literals alone, which the front does and may refuse."""
        number = self.number(depth)
        return number if any(name in number for name in NAMES) else self.random.choice(NAMES)

    def truth(self, depth=0):
        choice = self.random.random()
        if choice < 0.6 or depth > 2:
            return f"{self.number(depth + 1)} {self.random.choice(COMPARISONS)} {self.number(depth + 1)}"
        if choice < 0.8:
            return f"({self.truth(depth + 1)} {self.random.choice(('and', 'or'))} {self.truth(depth + 1)})"
        return f"not {self.random.choice(NAMES)}"

    def body(self, depth, statements):
        for _ in range(statements):
            self.random.choice((self.assign, self.assign, self.assign, self.branch, self.loop, self.use))(depth)

    def assign(self, depth):
        self.say(depth, f"{self.random.choice(NAMES)} {self.random.choice(('=', '+=', '^='))} {self.number()}")

    def branch(self, depth):
        self.say(depth, f"if {self.truth()}:")
        self.inner(depth)
        if self.random.random() < 0.5:
            self.say(depth, "else:")
            self.inner(depth)

    def loop(self, depth):
        if self.loops > 2 or depth > 2:
            return self.assign(depth)
        self.loops += 1
        if self.random.random() < 0.6:
            self.say(
                depth, f"for i{depth} in range(min({self.random.choice(NAMES)} & 15, {self.random.randint(1, 9)})):"
            )
            self.say(depth + 1, f"{self.random.choice(NAMES)} += i{depth}")
        else:
            name = self.random.choice(NAMES)
            self.say(depth, f"while {name} > {self.random.choice((5, 100))}:")
            # No more than that: a thousand rounds of anything with branches are more than the verifier follows.
            self.say(depth + 1, f"{name} >>= {self.random.randint(1, 9)}")
            return None
        self.inner(depth)
        return None

    def inner(self, depth):
        self.body(depth + 1, self.random.randint(1, 2) if depth < 3 else 1)
        if self.random.random() < 0.1:
            self.say(depth + 1, "return")

    def use(self, depth):
        choice = self.random.randrange(4)
        if choice == 0:
            self.say(depth, f"total.add({self.number(2)})")
        elif choice == 1:
            self.say(depth, f"sizes.add({self.number(2)})")
        elif choice == 2:
            self.say(depth, f"seen[{self.random.choice(NAMES)} & 7] += 1")
        else:
            self.say(depth, f"{self.random.choice(NAMES)} += seen.get({self.random.choice(NAMES)} & 7, 3)")
