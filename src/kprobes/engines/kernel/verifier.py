"""What the verifier's log says: its last words, the instruction that they are about, and that one's source line.

The log has one line per instruction that was walked (`12: (79) r1 = *(u64 *)(r1 +112)`), between them register states
(`12: R1_w=ctx(...)`, `from 3 to 7: R0=...`, on old kernels ` R1=ctx(id=0,...)`), source lines (`; text @ file.py:3`),
then what is wrong, then statistics. So the last words are what follows the last instruction and is none of these.
Imported only when a program was refused.

Source: kernel/bpf/verifier.c and kernel/bpf/log.c, Linux 5.10 to 6.18.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kprobes.errors import VerifierError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.model.plan import Program, SourceLine

_INSTRUCTION = re.compile(r"^(\d+): \([0-9a-f]{2}\) ")
_NOISE = re.compile(
    r"^(\d+: R\d|\d+: safe$|from \d+ to \d+:| ?R\d+(_[a-z]+)?=|;|processed \d+ insns|verification time|stack depth|"
    r"insns processed \d|-- (BEGIN|END) |func#\d+ @\d+|mark_precise:|parent |regs=|last_idx |first_idx |propagating |"
    r"Live regs before|(caller|callee)( R\d|:)|(returning )?from (caller|callee)|to caller|frame\d+:|\d+: frame\d+|"
    r"Func#\d+ is |(cur|old) state:|Validating .* func#|\s*\d+: [.0-9]{10} )"
)
_OURS = "this is a bug in kprobes: please report it with the handler and what KPROBES_DEBUG=1 shows"
_LOG_HINT = "KPROBES_DEBUG=1 shows all that it said"
_OTHER_WAY = 'probe it another way: way="kprobe", or @kretprobe for what is known at the return'
_NAMED = re.compile(r"(?:unreachable insn|infinite loop detected at insn|at insn|from insn|insn #?) ?(\d+)")

# What the verifier's words mean for a handler, and what to do; the first whose sign occurs in them counts. Programs are
# made so that the verifier takes them: where no handler can be at fault, the mistake is ours.
_REASONS = (
    ("too large. Processed", "it takes more steps than the kernel looks at (a million, over all ways through it)",
     "give its loops smaller bounds, or fewer branches"),
    ("jumps is too complex", "it has more ways through it than the kernel looks at",
     "give its loops smaller bounds, or fewer branches, or split it into two probes"),
    ("program is too large", "it has more instructions than this kernel takes", "do less at each hit"),
    ("infinite loop detected", "the kernel can't see that a loop ends", "loop over range(N) with a literal N"),
    ("back-edge", "this kernel (before 5.3) knows no loops", "write the turns one after the other: for x in (1, 2, 3)"),
    ("Too large", "its variables take more than the 512 bytes of stack", "use shorter strings, or keep them in a map"),
    ("misaligned", "a value is read or written across the boundary of a word", _OURS),
    ("from stack", "a value is used before it is set on some way through the handler", "set it on every way"),
    ("to stack", "a value lies outside of the 512 bytes of stack", "use shorter strings, or fewer at a time"),
    ("invalid stack", "a value lies outside of the 512 bytes of stack", "use shorter strings, or fewer at a time"),
    ("!read_ok", "a value is used before it is set on some way through the handler", "set it before the branch"),
    ("GPL-restricted", "it calls what is for GPL-compatible programs only", 'keep the license "Dual MIT/GPL"'),
    ("skb", "it calls a helper for network programs", _OURS),
    ("unknown func", "this kernel does not have what it calls for this kind of probe", _OTHER_WAY),
    ("invalid func", "this kernel does not have what it calls", "leave the builtin out, or use a newer kernel"),
    ("cannot use helper", "this kernel does not have what it calls for this kind of probe", _OTHER_WAY),
    ("helper call is not allowed", "this kernel does not have what it calls for this kind of probe", _OTHER_WAY),
    ("map_value_or_null", "an entry of a map may be absent where it is used", "test it first: if key in map"),
    ("_or_null'", "a record may not have found room where it is used", _OURS),
    ("same insn cannot be used", "one read is reached with pointers of two sorts",
     "read each by a statement of its own"),
    ("pointer += pointer", "two addresses are added", "subtract pointers, or compute with int(p)"),
    ("pointer arithmetic", "an address is computed with", "make a number of it first: int(p)"),
    ("with other prohibited", "an address is computed with", "make a number of it first: int(p)"),
    ("expected=", "a helper is handed something of another sort than it takes", _OURS),
    ("cannot pass map_type", "a map is handed to a helper for another sort of map", _OURS),
    ("min value is negative", "a length may be negative", "bound it on both sides: min(max(n, 0), 64)"),
    ("unbounded memory access", "a length is not bounded", "bound it first: min(n, 64)"),
    ("invalid zero-sized", "a length may be zero", "bound it from below: max(n, 1)"),
    ("invalid access to map value", "an index lies outside of a map's value", "bound it first: min(n, 15), or n & 15"),
    ("invalid access to memory", "more is written than the record has room for", _OURS),
    ("outside of the allowed memory range", "an index is not bounded", "bound it first: min(n, 15), or n & 15"),
    ("unbounded", "an index is not bounded", "bound it first: min(n, 15), or n & 15"),
    ("invalid mem access", "an address is read that the kernel doesn't know to be valid",
     'read it safely: deref(address, "u64")'),
    ("invalid bpf_context access", "this argument or register can't be read in this kind of probe", _OTHER_WAY),
    ("dereference of modified ctx", "this argument or register can't be read in this kind of probe", _OTHER_WAY),
    ("doesn't have", "the function has fewer arguments than are read", "look at its prototype: kprobes info FUNCTION"),
    ("is not a function", "the types are not those of the running kernel", "run the command again without its cache"),
    ("Unreleased reference", "a record is neither sent nor dropped on some way through the handler", _OURS),
    ("reference leak", "a record is neither sent nor dropped on some way through the handler", _OURS),
    ("unreachable insn", "it has instructions that nothing reaches", _OURS),
    ("frame pointer is read only", "it writes the frame pointer", _OURS),
    ("last insn is not", "it does not end", _OURS),
    ("jump out of range", "it jumps out of itself", _OURS),
    ("div by zero", "it divides by zero", "divide by something else"),
    ("invalid shift", "it shifts by more bits than there are", "shift counts go from 0 to 63"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Refusal:
    """The verifier's *words*, and the *index* of the instruction that they are about (-1: none)."""

    words: str
    index: int


def parse_log(log: str) -> Refusal:
    """Return what *log* says is wrong; empty words where it says nothing."""
    index = -1
    words: list[str] = []
    for line in log.splitlines():
        met = _INSTRUCTION.match(line)
        if met:
            index = int(met[1])
            words = []
        elif line.strip() and not _NOISE.match(line):
            words.append(line.strip())
    text = "; ".join(words)
    named = _NAMED.search(text)
    return Refusal(text, int(named[1]) if named else index)


def line_of(lines: Sequence[SourceLine], index: int) -> SourceLine | None:
    """Return the source line that instruction *index* comes from."""
    found = None
    for line in lines:
        if line.index > index:
            break
        found = line
    return found


def reason_for(words: str) -> tuple[str, str]:
    """Return the verifier's *words* in plain ones, and what to do about them; both empty where nothing is known."""
    return next(((plain, hint) for sign, plain, hint in _REASONS if sign in words), ("", ""))


def verifier_error(program: Program, number: int, log: str) -> VerifierError:
    """Return the error for *program*, refused with errno *number* and *log*."""
    refusal = parse_log(log)
    words = refusal.words or os.strerror(number)
    line = line_of(program.lines, refusal.index) if refusal.index >= 0 else None
    place = (line.file, line.line, line.column) if line else ("", 0, 0)
    plain, hint = reason_for(refusal.words)
    who = "the handler" if line else f"the program {program.name}"
    what = f"the kernel's verifier refused {who}: {f'{plain} ({words})' if plain else words}"
    return VerifierError(what, log=log, place=place, source=line.text if line else "", hint=hint or _LOG_HINT)
