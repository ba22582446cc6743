"""Writes event filters, valid and broken, as a grammar and a dice would have it."""

from __future__ import annotations

from random import Random

EVENT = "p:filtered/one vfs_read a=%di b=%si:s32 c=+0(%si):string d=%dx:u8 e=$comm"
NAMES = (
    "a",
    "b",
    "c",
    "d",
    "e",
    "comm",
    "COMM",
    "cpu",
    "CPU",
    "common_pid",
    "common_type",
    "__probe_ip",
    "a",
    "b",
    "d",
)
BAD_NAMES = ("nothing", "", "A", "a.x", "\u00e9", "_", "9")
OPERATORS = ("==", "!=", "<", "<=", ">", ">=", "&", "==", "~")
BAD_OPERATORS = ("=", "===", "<>", "!", "", "&&", "^", "|", "=~")
NUMBERS = ("0", "1", "100", "-1", "0x10", "017", "255", "256", "4294967295", "18446744073709551615")
BAD_NUMBERS = (
    "18446744073709551616",
    "08",
    "0x",
    "1x",
    "--1",
    "-",
    "1.5",
    "123456789012345678901234",
    "99999999999999999999999",
)
TEXTS = ('"cat"', "'cat'", '"c*"', '"*at"', '"*a*"', '"[a-c]?t"', '"!cat"', '""', '"a b"', '"(x)"', '"1*"')
BAD_TEXTS = ('"cat', "cat", "'cat\"", f'"{"x" * 256}"')
STRAY = "()!&|=~<>\"' ax0-{},"
FUNCTIONS = (
    "vfs_read",
    "vfs_write",
    "init_task",
    "no_such_function",
    "0xffffffff81000000",
    "0x10",
    "12x",
    "0xffffffffffffffffffff",
    "010000000000000000000000000",
    "vfs_read)",
    "",
)
CPU_LISTS = ("0", "1", "0-1", "0,1", "all", "N", "0-N", "1,1", ",", " 0 , 1 ", "0-1:1/2", "0-N:1/1", "all:1/2", "ALL")
BAD_CPU_LISTS = ("2", "", "1-0", "x", "0-", "-1", "0-1:2/1", "0:1/2", "0-1:1/0", "0-5", "0x1", "0;1", "99999999999")


class FilterWriter:
    """Writes filters for the event `EVENT`."""

    def __init__(self, seed: int) -> None:
        self._dice = Random(seed)

    def lines(self, count: int) -> list[str]:
        """Return *count* filters, none of them empty."""
        found: list[str] = []
        while len(found) < count:
            line = self._expression(self._dice.choice((0, 0, 1, 1, 2, 3)))
            if self._one(4):
                line = self._broken(line)
            if line.strip():
                found.append(line)
        return found

    def _expression(self, depth: int) -> str:
        if not depth:
            return self._comparison()
        left, right = self._expression(depth - 1), self._expression(self._dice.randrange(depth))
        way = self._dice.randrange(6)
        if way < 2:
            return f"{left} && {right}"
        if way < 4:
            return f"{left}||{right}"
        return f"{self._pick(('', '!', '! '))}({left}){self._pick(('', '', ' && ', '||')) and f' && {right}'}"

    def _comparison(self) -> str:
        if self._one(5):
            return self._place()
        name = self._pick(BAD_NAMES if self._one(14) else NAMES)
        operator = self._pick(BAD_OPERATORS if self._one(14) else OPERATORS)
        is_text = (name in {"c", "e", "comm", "COMM"}) != self._one(10)
        good, bad = (TEXTS, BAD_TEXTS) if is_text else (NUMBERS, BAD_NUMBERS)
        if is_text and not self._one(5):
            operator = self._pick(("==", "!=", "~"))
        value = self._pick(bad if self._one(10) else good)
        blank = self._pick((" ", " ", ""))
        return f"{name}{blank}{operator}{blank}{value}"

    def _place(self) -> str:
        """Return a comparison with a function or a list of CPUs, which kernels have from 6.12 on."""
        name = self._pick(NAMES if self._one(3) else ("a", "__probe_ip", "cpu", "d"))
        operator = self._pick(OPERATORS if self._one(4) else ("==", "!=", "&"))
        if self._one(2):
            name = self._pick(("a", "__probe_ip", "__probe_ip", name))
            return f"{name}.function {operator} {self._pick((*FUNCTIONS, *['vfs_read', 'do_sys_openat2'] * 4))}"
        listed = self._pick(BAD_CPU_LISTS if self._one(4) else CPU_LISTS)
        opening, closing = self._pick(("{", "{", "{", "{", "", " {", "(")), self._pick(("}", "}", "}", "}", ""))
        return f"{name} {operator} CPUS{opening}{listed}{closing}"

    def _broken(self, text: str) -> str:
        at = self._dice.randrange(len(text))
        return text[:at] + self._pick(("", self._pick(STRAY), text[at] * 2)) + text[at + 1 :]

    def _one(self, sides: int) -> bool:
        return self._dice.randrange(sides) == 0

    def _pick(self, choices: tuple[str, ...] | str) -> str:
        return self._dice.choice(choices)
