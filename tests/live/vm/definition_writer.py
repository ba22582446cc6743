"""Writes probe definitions, valid and broken, as a grammar and a dice would have it: the same for the same seed."""

from __future__ import annotations

from random import Random

from kprobes.grammar.numbers import unsigned

FUNCTIONS = ("vfs_read", "vfs_write", "do_sys_openat2", "kernel_clone", "ksys_read", "vfs_fsync")
PLACES = (
    *FUNCTIONS,
    *FUNCTIONS,
    "vfs_read+0",
    "vfs_read-0",
    "vfs_read+0x0%return",
    "vfs_read%return",
    "do_sys_openat2%return",
    "vfs_read%returns",
    "vfs_read%",
    "%return",
    "vfs_read+1",
    "vfs_read+4",
    "vfs_read+4%return",
    "vfs_read+5",
    "vfs_read+9",
    "vfs_read+0x5000000000",
    "vfs_read+4294967296",
    "vfs_read+4294967295",
    "vfs_read+",
    "vfs_read-1",
    "vfs_read+zero",
    "vfs_read+08",
    "vfs_read+99999999999999999999",
    "no_such_function",
    "no_such_function%return",
    "no_such_module:foo",
    "no_such_module:foo+8",
    "no_such_module:foo%return",
    "a/b:c",
    "a/b",
    "jiffies",
    "linux_banner",
    "t_next",
    "t_next%return",
    "exc_int3",
    "do_int3",
    "notrace_is_missing.cold",
    "0",
    "1",
    "0x10",
    "+5",
    "0xfffffffffffffff",
    "99999999999999999999999",
    "0x",
    "08",
)
HEADS = (
    "p",
    "p",
    "p",
    "p",
    "r",
    "r",
    "r10",
    "r4096",
    "r4097",
    "r0",
    "r08",
    "p1",
    "r1x",
    "r99999999999",
    "px",
    "q",
    "P",
)
GROUPS = (
    "",
    "",
    "",
    "",
    "mine/",
    "mine.",
    "my-own/",
    "9mine/",
    "mi ne/",
    "/",
    ".",
    "mine//",
    "g" * 63 + "/",
    "g" * 64 + "/",
    "-/",
)
EVENTS = (
    "one",
    "two",
    "one",
    "two",
    "three",
    "_",
    "A9",
    "9a",
    "a-b",
    "a.b",
    "",
    "e" * 63,
    "e" * 64,
    "\u00e9t\u00e9",
    "a:b",
    "a%b",
)
REGISTERS = ("di", "si", "dx", "cx", "ax", "bx", "sp", "ip", "flags", "r8", "r15", "cs", "ss", "orig_ax", "bp")
BAD_REGISTERS = ("rdi", "foo", "", "r16", "eax", "es", "DI")
NUMBERS = (
    "0", "1", "8", "16", "0x10", "010", "255", "0X1f", "4096", "9223372036854775807", "9223372036854775808",
    "18446744073709551615", "18446744073709551616", "08", "0x", "x", "", "1x", "+1", "-1", "--1", "2048", "2049",
)  # fmt: skip
VARIABLES = (
    "stack", "stack0", "stack1", "stack2048", "stack2049", "stackx", "stack+1", "retval", "retval", "retvalue", "comm",
    "COMM", "comm2", "arg1", "arg2", "arg0", "arg2049", "arg", "argx", "arg+1", "arg99999999999", "foo", "",
    "stack99999999999999999999", "arg*", "arg7",
)  # fmt: skip
NAMES = ("a", "b", "fd", "_", "x1", "n" * 32)
BAD_NAMES = ("", "9", "a-b", "n" * 33, "common_pid", "__probe_ip", "__probe_func", "common_type", "a.b", "\u00e9")
TYPES = (
    "u8", "u16", "u32", "u64", "s8", "s16", "s32", "s64", "x8", "x16", "x32", "x64", "string", "ustring", "symbol",
    "symstr", "char", "b4@4/8", "b1@0/16", "b3@5/32", "b64@0/64", "b0x10@010/64",
)  # fmt: skip
BAD_TYPES = (
    "", "u", "u7", "x128", "string2", "b", "b4", "b4@4", "b0@0/8", "b9@0/8", "b4@5/8", "b4@4/12", "b4@/8",
    "bx@0/8", "int", "b18446744073709551615@1/8", "b18446744073709551616@0/8", "b99999999999999999999@1/8",
    "b4@4/", "b4@4/08", "%pd", "%pD", "b1@1/+8",
)  # fmt: skip
ARRAYS = ("[1]", "[4]", "[64]", "[65]", "[0]", "[", "[]", "[4]x", "[x]", "[4", "[0x10]", "[-1]", "[010]")
SYMBOLS = (
    "jiffies",
    "linux_banner",
    "vfs_read",
    "no_such_symbol",
    "jiffies+8",
    "jiffies-8",
    "jiffies+x",
    "jiffies+",
    "",
)
PARAMETERS = (
    "file", "buf", "count", "pos", "dfd", "filename", "how", "args", "fd", "nosuch", "file->f_pos",
    "file->f_path.dentry", "file->f_path.dentry->d_parent", "file->nosuch", "file.f_pos", "count->x", "file-f_pos",
    "file->", "how->flags", "_x", "file->f_inode->i_ino", "args->flags", "file->f_flags", "pos->x", "how->",
    "file->f_path.", "file->f_path.dentry.x", "file->f_inode->i_sb->s_id", "datasync", "start", "args->exit_signal",
)  # fmt: skip
# What the dice seldom throw: with these, every message that a kernel has for kprobes and uprobes is seen.
SELDOM_KPROBE = (
    ("p:one vfs_read a=+0($comm)", 'p:one vfs_read a=+0(\\"text")', "p vfs_read @+8", 'p vfs_read \\"text'),
    ("p vfs_read a=+0(%si):symstr", "p vfs_read a=$stack:symstr", "p vfs_read a=%si:string", "p vfs_read %ax:u8[4]"),
    (f"p vfs_read {'n' * 33}=%ax", f"p vfs_read {'n' * 32}=%ax"),
    ("p vfs_read =%ax", "p vfs_read a=", "p vfs_read a=%ax a=%bx", "p vfs_read $comm:u8", "p vfs_read $comm:string[2]"),
    ("p vfs_read $arg* $arg*", f"p vfs_read {'$arg1 ' * 30}", "p vfs_read+5 $arg1", "p vfs_read+5 count", "p 1 $arg*"),
    ("r fput $retval", "p fput $arg1 $arg2", "p vfs_read count->x", "p vfs_read file.f_pos", "p vfs_read file-f_pos"),
    ("p vfs_read file->nosuch", "p vfs_read file->f_pos->x", "p vfs_read file->f_pos.x", "p vfs_read nosuch"),
    ("p vfs_read $arg1:string", "p vfs_read buf:string", "p vfs_read count:string", "p vfs_read file->f_pos:string"),
    (
        "r vfs_read $retval->x",
        "r vfs_read file $arg1 count $arg*",
        "r vfs_read $arg*",
        "p vfs_read $arg*",
        "p vfs_read (x)",
    ),
    ("p:sched/sched_switch vfs_read", "p:one vfs_read", "p:one vfs_write", "r:one vfs_read", "p:one vfs_read"),
    ("p:one vfs_read a=%ax:u8", "p:one vfs_write a=%ax:u16", "p:one vfs_write a=%ax:u8 b=%bx", "p:one vfs_write"),
    ("p 1 a=%ax", "p:kprobes/two 1", "p:kprobes/two 2", "p no_such_module:foo a=@nosuch", "p 1 a=@nosuch", "p 0"),
    ("p:one vfs_read", "-:kprobes/", "p:one vfs_read", "-:one vfs_write", "-:one vfs_read", "-:one"),
    ("p vfs_read " + "+0(" * 14 + "@1" + ")" * 14, "p vfs_read " + "+0(" * 15 + "%si" + ")" * 15),
    ("p vfs_read " + "+0(" * 13 + "@1" + ")" * 13 + ":u8[2]", "p vfs_read " + "+0(" * 14 + "%si" + ")" * 14),
    (
        "p vfs_read " + "+0(" * 13 + "\\1" + ")" * 13 + ":b1@0/8",
        "p vfs_read " + "+0(" * 12 + "@1" + ")" * 12 + ":b1@0/8[4]",
    ),
    (f"p vfs_read {' '.join(f'a{n}=%ax' for n in range(129))}", f"p vfs_read {'+0(%si):u64[64] ' * 7}"),
    (
        "p linux_banner +0(%cx):%pd",
        "p:one vfs_read name=$arg1:%pD",
        "p:one vfs_read $arg1:%pd",
        "p vfs_read " + " ".join(["+0(%di):%pD"] * 9),
    ),
)
SELDOM_UPROBE = (
    (
        "p FILE:0x1000 @+8:string",
        "p FILE:0x1000 @+x",
        "p FILE:0x1000 @jiffies",
        "p FILE:0x1000 $arg1",
        "p FILE:0x1000 name",
    ),
    ("p FILE:0x1000 %ax:symbol", "p FILE:0x1000 %ax:symstr", "p FILE:0x1000 $stack99999", "r FILE:0x1000 $retvalue"),
    ("p:one FILE:0x1000(8)", "p:two FILE:0x1000(16)", "p:two FILE:0x1000", "-:one", "p:two FILE:0x1000(16)"),
    (
        "p:one FILE:0x1000",
        "p:one FILE:0x1010",
        "p:one FILE:0x1010",
        "r:one FILE:0x1020",
        "p:sched/sched_switch FILE:0x1000",
    ),
    ("p:one FILE:0x1000 a=%ax", "-:one FILE:0x1000", "-:one FILE:0x0000000000001000 a=%ax", "-:one"),
    ("p /bin/no:0x1000", "p /proc:0x1000", "p FILE:0x1000(x)", "p FILE:0x1000(1", "p FILE:0x1000(1)x", "p FILE:0x"),
)
SELDOM_DYNAMIC = (
    ("p:one vfs_read", "p:two FILE:0x1000", "p:kprobes/two FILE:0x1000", "p:uprobes/two vfs_read", "!:one", "!:two x"),
    (
        "p:mine/one vfs_read",
        "r:mine/one FILE:0x1000",
        "p:mine/one FILE:0x1000",
        "-:mine/",
        "x",
        "!",
        "p",
        "p vfs_read:x/",
    ),
)

STRAY = '+-()[]:=@$%\\"#,.u0x9_ /'


class Writer:
    """Writes definitions for one kind of events."""

    def __init__(self, seed: int, kind: str, files: tuple[str, ...] = ()) -> None:
        self._dice = Random(seed)
        self._kind = kind
        self._files = files

    def sequences(self, count: int) -> list[list[str]]:
        """Return about *count* lines in sequences, each for a tracefs without events."""
        seldom = {"kprobe": SELDOM_KPROBE, "uprobe": SELDOM_UPROBE}.get(self._kind, SELDOM_DYNAMIC)
        file = self._files[0] if self._files else ""
        found = [[line.replace("FILE", file) for line in lines] for lines in seldom]
        lines = sum(map(len, found))
        while lines < count:
            found.append(self._sequence())
            lines += len(found[-1])
        return found

    def _sequence(self) -> list[str]:
        if self._one(4):
            return self._related()
        return [line for _ in range(self._dice.randint(1, 4)) if (line := self._line()).strip("\n")]

    def _related(self) -> list[str]:
        """Return lines that have to do with each other: siblings, doubles, deletions."""
        name, place = self._pick(("mine/one", "one", "mine/two")), self._good_place()
        first = " ".join([f"{self._pick('ppr')}:{name}", place, *self._plain_arguments()])
        lines = [first]
        for _ in range(self._dice.randint(1, 5)):
            known = self._pick([line for line in lines if line[0] in "pr" and " " in line]).split(" ")
            way = self._dice.randrange(9)
            if way == 0:
                lines.append(" ".join(known))
            elif way == 1:
                lines.append(" ".join([known[0], self._good_place(), *known[2:]]))
            elif way == 2:
                lines.append(" ".join([*known[:2], *self._plain_arguments()]))
            elif way == 3:
                lines.append(" ".join([self._pick("pr") + known[0][1:], *known[1:]]))
            elif way == 4:
                event = self._pick((name, "one", "mine/", "two", "x", ""))
                lines.append(self._pick(("-:", "-:", " -:", "-", "!:", "-")) + event)
            elif way == 5:
                lines.append(" ".join([f"-:{name}", self._listed(known[1]), *known[2 : 2 + self._dice.randrange(3)]]))
            elif way == 6:
                lines.append(" ".join([*known[:2], *known[2:][::-1]]))
            elif way == 7:
                lines.append(" ".join([*known, "extra=%ax"]))
            else:
                lines.append(" ".join(known[:-1]) if len(known) > 2 else self._line())
        return [line for line in lines if line.strip()]

    def _listed(self, place: str) -> str:
        if ":" in place:
            path, _, offset = place.rpartition(":")
            value = unsigned(offset)
            return f"{path}:0x{value:016x}" if value >= 0 else place
        return place

    def _good_place(self) -> str:
        if self._kind == "uprobe" or (self._kind == "dynamic" and self._one(2)):
            return f"{self._pick(self._files[:2])}:{self._pick(('0x1000', '0x1010'))}"
        return self._pick(FUNCTIONS[:3])

    def _plain_arguments(self) -> list[str]:
        count = self._dice.randrange(4)
        return [f"{name}={self._pick(('%ax', '%di', '%si:u32', '+0(%si):string', '%di:u8'))}" for name in "abc"[:count]]

    def _line(self) -> str:
        if self._one(60):
            return self._odd_line()
        words = [
            self._head(),
            self._place(),
            *[self._argument() for _ in range(self._dice.choice((0, 0, 1, 1, 1, 2, 3)))],
        ]
        text = " ".join(words)
        if self._one(12):
            text = self._broken(text)
        if self._one(40):
            text = self._pick(("  ", "\t")) + text.replace(" ", self._pick(("  ", "\t", " \t ", "\v")))
        return text.replace("\n", " ")

    def _odd_line(self) -> str:
        many = " ".join(f"{self._pick('abcdefgh')}{n}=%ax" for n in range(self._pick((127, 128, 129, 140))))
        long = " ".join(f"a{n}=+0(%si):u64[{self._pick((63, 64))}]" for n in range(self._pick((5, 6, 7))))
        return self._pick(
            (
                "   ",
                "# only words",
                "p",
                "-",
                "-:",
                "-:/",
                "-:none",
                "-:none/none",
                "r",
                f"p {self._good_place()} {many}",
                f"p {self._good_place()} {long}",
                f"p {self._good_place()} a=" + "+0(" * self._pick((12, 13, 14, 15, 16)) + "%si" + ")" * 16,
                f"p {self._good_place()} # %si",
                f"p {self._good_place()} {'x' * 4070}",
                f"p {self._good_place()} {'x' * 5000}",
                f"p:{'-' * 200}/a {self._good_place()}",
                "p:" + "a" * 300 + " x",
            )
        )

    def _head(self) -> str:
        head = self._pick(HEADS) if self._one(3) else self._pick("ppr")
        if self._one(3):
            return head
        group = self._pick(GROUPS) if self._one(2) else ""
        return f"{head}:{group}{self._pick(EVENTS if self._one(3) else EVENTS[:4])}"

    def _place(self) -> str:
        if self._kind == "kprobe" or (self._kind == "dynamic" and self._one(2)):
            return self._pick(PLACES) if self._one(2) else self._good_place()
        path = self._pick(self._files)
        offset = self._pick(NUMBERS) if self._one(3) else "0x1000"
        return path + self._pick((":", ":", ":", ":", "", "::")) + offset + self._counter()

    def _counter(self) -> str:
        if not self._one(3):
            return ""
        number = self._pick(NUMBERS)
        return self._pick(
            (
                "%return",
                "%retur",
                f"({number})",
                f"({number}",
                f"({number})x",
                f"%return({number})",
                f"({number})%return",
                "%",
                "()",
            )
        )

    def _argument(self) -> str:
        name = f"{self._pick(NAMES)}=" if self._one(2) else f"{self._pick(BAD_NAMES)}=" if self._one(12) else ""
        kind = ""
        if self._one(2):
            kind = ":" + (self._pick(BAD_TYPES) if self._one(5) else self._pick(TYPES))
            if self._one(4):
                kind += self._pick(ARRAYS)
        return name + self._term(self._dice.choice((0, 0, 0, 1, 1, 2, 3))) + kind

    def _term(self, depth: int) -> str:
        if depth:
            sign = self._pick(("+", "+", "+", "-", "+u", "-u", "u", "+-"))
            number = self._pick(NUMBERS) if self._one(3) else "0"
            close = self._pick((*[")"] * 8, "", "))", ")x"))
            return f"{sign}{number}{'' if self._one(6) else '('}{self._term(depth - 1)}{close}"
        way = self._dice.randrange(12)
        if way < 4:
            return "%" + (self._pick(BAD_REGISTERS) if self._one(8) else self._pick(REGISTERS))
        if way < 7:
            return "$" + self._pick(VARIABLES)
        if way == 7:
            return "@" + self._pick((*SYMBOLS, *NUMBERS, "+" + self._pick(NUMBERS)))
        if way == 8:
            return "\\" + self._pick((*NUMBERS, '"text"', '"', '"a', '""', '"a:b"', "+" + self._pick(NUMBERS)))
        if way < 11:
            return self._pick(PARAMETERS)
        return self._pick(("", "x", "(file)$arg1", "(", "*", "é", "12", "~"))

    def _broken(self, text: str) -> str:
        at = self._dice.randrange(len(text))
        way = self._dice.randrange(3)
        if way == 0:
            return text[:at] + text[at + 1 :]
        if way == 1:
            return text[:at] + self._pick(STRAY) + text[at:]
        return text[:at] + text[at] + text[at:]

    def _one(self, sides: int) -> bool:
        return self._dice.randrange(sides) == 0

    def _pick(self, choices: tuple[str, ...] | list[str] | str) -> str:
        return self._dice.choice(choices)
