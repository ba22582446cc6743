"""Names of places in a kernel -> sites, or the reason why no probe can go there.

Spellings: `vfs_read`, `vfs_read+0x10`, `ext4:ext4_file_read_iter`, `0xffffffff81234567`, and globs of functions
(`vfs_*`, `ext4:*`). A single place that can't be probed is refused; a glob leaves such places out and counts them.

What can be told beforehand is told here. The last word is the kernel's: it alone knows jump labels, static calls and
instruction boundaries.
"""

from __future__ import annotations

import errno
import re
from bisect import bisect_right
from collections import Counter
from functools import cached_property

from kprobes.errors import (
    SymbolNotFoundError,
    UnprobeableError,
    UsageError,
)
from kprobes.frozen import dataclass, replace
from kprobes.model.plan import Site
from kprobes.symbols.kallsyms import Kallsyms, KernelSymbol
from kprobes.symbols.kprobes_list import parse_blacklist

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.model.facts import Facts

PLACE = re.compile(r"(?:(?P<module>[\w*?\[\]!-]+):)?(?P<name>[^\s:+]+)(?:\+(?P<offset>0x[0-9a-fA-F]+|\d+))?\Z")
ADDRESS = re.compile(r"0x[0-9a-fA-F]{1,16}\Z")
GLOB = re.compile(r"[*?\[]")
OFFSET_LIMIT = 1 << 31

# Symbols that stand in the code but are no functions, and why.
_PREFIXES = {
    "__pfx_": "it is padding before a function",
    "__cfi_": "it is the type check before a function",
    "__ftrace_invalid_address__": "it was left out by the linker",
    "__SCT__": "it is the trampoline of a static call, which the kernel rewrites",
}
_NO_FUNCTIONS = tuple(_PREFIXES)
_INIT = "it is init code, freed once the kernel has booted"
# Names of copies: `vfs_read.isra.0` is a function of its own, `.cold` the unlikely half of one.
_COLD = re.compile(r"\.cold(\.\d+)?$")


@dataclass(frozen=True, slots=True)
class Resolved:
    """A site. *traceable* says whether ftrace-based ways (fentry, kprobe.multi) reach it; None: not looked up.

    *size* is that of the function in bytes.
    """

    site: Site
    traceable: bool | None = None
    size: int = 0


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a place means: its sites, and how many functions of a glob were left out, by reason."""

    found: tuple[Resolved, ...]
    skipped: tuple[tuple[str, int], ...] = ()

    def notes(self, text: str) -> list[str]:
        """Return a line that tells what was left out of *text*, or none."""
        return _notes(text, self.skipped)


@dataclass(frozen=True, slots=True)
class Functions:
    """What a glob means, by (name, module, address), and how many functions were left out, by reason.

    *traceable*: ftrace reaches them all; else the kernel doesn't tell.
    """

    found: tuple[tuple[str, str, int], ...]
    skipped: tuple[tuple[str, int], ...] = ()
    traceable: bool = True

    def notes(self, text: str) -> list[str]:
        """Return a line that tells what was left out of *text*, or none."""
        return _notes(text, self.skipped)


def _notes(text: str, skipped: Sequence[tuple[str, int]]) -> list[str]:
    if not skipped:
        return []
    reasons = ", ".join(f"{count} {reason}" for reason, count in skipped)
    return [f"{text}: {sum(count for _, count in skipped)} left out ({reasons})"]


class KernelSymbols:
    """The symbols of one kernel, with what is known about probing them. Texts are read when first needed."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    @cached_property
    def table(self) -> Kallsyms:
        """Return the symbol table."""
        return Kallsyms.load(self._facts.kallsyms())

    def resolve(self, text: str, *, traceable: bool = False) -> Resolution:
        """Return the sites of the place *text*.

        *traceable* asks to look up which of them ftrace can reach; for globs that is always done, since one function
        that it can't would spoil the attachment of all.

        Raises:
            UsageError: the spelling is off.
            SymbolNotFoundError, AmbiguousSymbolError: with what comes near, or what tells them apart.
            UnprobeableError: a single place where no probe can go.
        """
        match = PLACE.match(text)
        if match is None:
            raise UsageError(
                f"{text!r} is no place in a kernel", hint="write function, function+0x10, module:function or 0xADDRESS"
            )
        offset = parse_offset(match["offset"] or "0")
        if offset >= OFFSET_LIMIT:
            raise UsageError(f"the offset in {text!r} is beyond any function")
        name = f"{match['module']}:{match['name']}" if match["module"] else match["name"]
        if GLOB.search(name):
            if offset:
                raise UsageError(
                    f"{text!r} gives an offset to a glob", hint="name one function, or leave the offset out"
                )
            return self._resolve_glob(name)
        symbol, base = self._address(name) if ADDRESS.match(name) else (self.function(name), 0)
        return Resolution((self._resolve_one(symbol, base + offset, traceable=traceable),))

    def function(self, name: str) -> KernelSymbol:
        """Return the code symbol *name* (`name` or `module:name`), whether or not it can be probed.

        Raises:
            SymbolNotFoundError, AmbiguousSymbolError, UnprobeableError: there is none, or several, or it is data.
        """
        found = self.table.lookup(name)
        if not found:
            raise self._not_found(name)
        if not any(self.table.is_code(symbol) for symbol in found):
            raise UnprobeableError(name, "it is data, not a function")
        return self.table.choose(name, found)

    def refusal(self, symbol: KernelSymbol, offset: int = 0) -> str:
        """Return why no probe can go to *symbol* + *offset*, empty where nothing is known against it."""
        if not self.table.is_code(symbol):
            return "it is data, not code"
        for prefix, reason in _PREFIXES.items():
            if symbol.name.startswith(prefix):
                return reason
        if self._is_blacklisted(symbol.name, symbol.module, symbol.address + offset if symbol.address else 0):
            return "the kernel blacklists it (a probe there could recurse or hang)"
        if self.table.init_text[0] <= symbol.address < self.table.init_text[1]:
            return _INIT
        return ""

    def is_traceable(self, symbol: KernelSymbol) -> bool | None:
        """Return whether ftrace can reach the entry of *symbol*; None where the kernel doesn't tell."""
        if self._traceable is None:
            return None
        line = f"{symbol.name} [{symbol.module}]" if symbol.module else symbol.name
        return line in self._traceable

    def known_as(self, symbol: KernelSymbol) -> KernelSymbol:
        """Return the symbol by which ftrace and the type information know the function *symbol*: of several at one
        address they have only one (`__x64_sys_getpid` is `__do_sys_getpid`)."""
        if self.is_traceable(symbol) is False:
            return next((one for one in self.table.aliases(symbol) if self.is_traceable(one)), symbol)
        return symbol

    # One place.

    def _address(self, text: str) -> tuple[KernelSymbol, int]:
        address = int(text, 16)
        if self.table.hidden:
            raise UnprobeableError(text, "kernel addresses are hidden from you", hint="run as root, or name a function")
        found = self.table.symbol_at(address)
        if found is None:
            raise UnprobeableError(text, "it is in no function of the kernel")
        return found

    def _not_found(self, name: str) -> Exception:
        module, colon, plain = name.rpartition(":")
        variants = self.table.variants(plain)
        copies = tuple(v.name for v in variants if not _COLD.search(v.name) and not v.name.startswith("__pfx_"))
        if copies and not colon:
            return UnprobeableError(
                name,
                "the compiler left only changed copies of it",
                hint=f"probe {', '.join(dict.fromkeys(copies))} (arguments may have moved: name registers)",
                number=errno.ENOENT,
            )
        if colon and self.table.lookup(plain, ""):
            return SymbolNotFoundError(
                name, where="the kernel", hint=f"{module} is built into this kernel: write {plain}"
            )
        if colon and module not in ("vmlinux", "kernel") and module.replace("-", "_") not in self.table.modules():
            return SymbolNotFoundError(
                name,
                where="the kernel",
                hint=f"no module {module!r} is loaded: `modprobe {module}` if it exists; functions of programs "
                "and libraries go with -p PID or -- CMD",
            )
        near = self.table.nearest(name)
        hint = "" if near else "it may have been inlined everywhere, or belong to a module that isn't loaded"
        return SymbolNotFoundError(name, nearest=near, where="the kernel", hint=hint)

    def _resolve_one(self, symbol: KernelSymbol, offset: int, *, traceable: bool) -> Resolved:
        name = f"{symbol.name}+{offset:#x}" if offset else symbol.name
        reason = self.refusal(symbol, offset)
        if reason:
            raise UnprobeableError(name, reason, number=errno.ENOENT if reason == _INIT else errno.EINVAL)
        size = 0 if self.table.hidden else self.table.size_of(symbol)
        if size and offset >= size:
            raise UnprobeableError(name, f"{symbol.name} has only {size:#x} bytes")
        site = _site(symbol, offset)
        if not traceable or offset:
            return Resolved(site, self.is_traceable(symbol) if traceable else None, size)
        known = self.known_as(symbol)
        return Resolved(replace(site, symbol=known.name), self.is_traceable(known), size)

    # Globs.

    def functions(self, pattern: str) -> Functions:
        """Return the functions that a glob means, by name: there may be 50,000, and a list needs no more of them.

        Raises:
            SymbolNotFoundError: none is left.
        """
        found, skipped = self._passing(pattern)
        return Functions(tuple(found), skipped, self._traceable is not None)

    def _resolve_glob(self, pattern: str) -> Resolution:
        found, skipped = self._passing(pattern)
        traceable = None if self._traceable is None else True
        sites = (Site(0, name, symbol=name, address=address, module=module) for name, module, address in found)
        return Resolution(tuple([Resolved(site, traceable) for site in sites]), skipped)

    def _passing(self, pattern: str) -> tuple[list[tuple[str, str, int]], tuple[tuple[str, int], ...]]:
        """Return (name, module, address) of the functions that a glob means, and how many it leaves out, by reason.

        All of a kernel are some 100,000: what is said of each stands here in the loop.
        """
        found: dict[tuple[str, str, int], None] = {}
        others: set[tuple[str, str, int]] = set()
        skipped = Counter[str]()
        low, high = self.table.init_text
        end = self.table.text_end or 1 << 64
        traceable, (listed, begins, ends) = self._traceable, self._blacklist
        for digits, _, name, module in self.table.matching(pattern, _NO_FUNCTIONS, code=True):
            address = int(digits, 16)
            if address >= end and not (module or low <= address < high):
                continue  # data
            if module == "bpf" or (".cold" in name and _COLD.search(name)):
                continue
            one = (name, module, address)
            if one in found or one in others:
                if not address:
                    skipped["of the same name"] += 1
                continue
            span = bisect_right(begins, address) - 1
            if (span >= 0 and address < ends[span]) or (not module and _is_listed(name, listed)):
                skipped["blacklisted"] += 1
            elif low <= address < high:
                skipped["init code"] += 1
            elif traceable is not None and (f"{name} [{module}]" if module else name) not in traceable:
                skipped["notrace"] += 1
            else:
                found[one] = None
                continue
            others.add(one)
        counted = tuple(skipped.most_common())
        if not found:
            told = _notes(pattern, counted)
            raise SymbolNotFoundError(pattern, where="the kernel", hint=told[0] if told else "no function matches")
        return list(found), counted

    # What is known about probing, from texts of the target.

    @cached_property
    def _blacklist(self) -> tuple[frozenset[str], list[int], list[int]]:
        """Return the names in the kernel's list, and where its spans begin and end."""
        entries = list(parse_blacklist(self._facts.text("blacklist") or ""))
        spans = sorted((one.begin, one.end) for one in entries if one.end)
        return frozenset(one.name for one in entries), [low for low, _ in spans], [high for _, high in spans]

    def _is_blacklisted(self, name: str, module: str, address: int) -> bool:
        """Tell whether the kernel's list has *name*, the original of the copy *name*, or *address* (0: hidden)."""
        names, begins, ends = self._blacklist
        if not module and _is_listed(name, names):
            return True
        at = bisect_right(begins, address) - 1
        return at >= 0 and begins[at] <= address < ends[at]

    @cached_property
    def _traceable(self) -> frozenset[str] | None:
        text = self._facts.text("functions")
        return frozenset(text.split("\n")) if text else None


def resolve_kernel(text: str, facts: Facts) -> Sequence[Resolved]:
    """Return the sites of the place *text* in the kernel that *facts* describe; see `KernelSymbols.resolve`."""
    return KernelSymbols(facts).resolve(text).found


def _is_listed(name: str, names: frozenset[str]) -> bool:
    """Tell whether *names* has *name*, or the original of the copy *name*."""
    return name in names or ("." in name and name.partition(".")[0] in names)


def parse_offset(text: str) -> int:
    """Return `16` or `0x10` as a number."""
    return int(text, 16 if text.startswith("0x") else 10)


def _site(symbol: KernelSymbol, offset: int) -> Site:
    name = f"{symbol.name}+{offset:#x}" if offset else symbol.name
    return Site(0, name, symbol=symbol.name, offset=offset, address=symbol.address, module=symbol.module)
