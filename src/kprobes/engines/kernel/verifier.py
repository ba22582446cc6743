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
_NAMED = re.compile(r"(?:unreachable insn|infinite loop detected at insn|at insn|from insn|insn #?) ?(\d+)")

# What the common refusals mean for a handler; the first that occurs in the last words counts.
_HINTS = (
    ("too large. Processed", "the handler takes too many steps: give its loops smaller bounds, or fewer branches"),
    ("The sequence of", "the handler has too many branches in a row: make it smaller, or split it into two probes"),
    ("infinite loop detected", "the verifier can't see that this loop ends: use `for _ in range(N)` with a constant N"),
    ("back-edge", "this kernel (before 5.3) knows no loops"),
    ("Too large", "the handler's variables take more than the 512 bytes of stack: use shorter strings or a map"),
    ("invalid stack", "a value on the stack is read before it is written on some path: set it on every path"),
    ("invalid indirect read from stack", "a value is used before it is set on some path: set it on every path"),
    ("!read_ok", "a variable is used that has no value on some path: set it before the branch"),
    ("GPL-restricted", 'this builtin is for GPL-compatible programs: keep the license "Dual MIT/GPL"'),
    ("unknown func", "this kernel does not have that helper for this kind of probe"),
    ("invalid func", "this kernel does not have that helper for this kind of probe"),
    ("cannot use helper", "this kernel does not have that helper for this kind of probe"),
    ("map_value_or_null", "the entry may be absent: test it before it is used"),
    ("invalid access to map value", "an index is outside of the map's value: bound it first"),
    ("outside of the allowed memory range", "an index is not bounded: compare it with its limit first"),
    ("unbounded", "an index is not bounded: compare it with its limit first"),
    ("invalid mem access", "this is not known to be a valid pointer: read it through the builtin `deref`"),
    ("invalid bpf_context access", "this argument or register can't be read in this kind of probe"),
    ("is not a function", "the type information is not that of the running kernel"),
    ("Unreleased reference", "a reserved ring record is neither emitted nor dropped on some path"),
)


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


def hint_for(words: str) -> str:
    """Return what to do about the verifier's *words*, empty where nothing is known."""
    return next((hint for sign, hint in _HINTS if sign in words), "")


def verifier_error(program: Program, number: int, log: str) -> VerifierError:
    """Return the error for *program*, refused with errno *number* and *log*."""
    refusal = parse_log(log)
    words = refusal.words or os.strerror(number)
    line = line_of(program.lines, refusal.index) if refusal.index >= 0 else None
    place = (line.file, line.line, line.column) if line else ("", 0, 0)
    what = f"the kernel's verifier refused the handler: {words}"
    if line is None:
        what = f"the kernel's verifier refused the program {program.name}: {words}"
    return VerifierError(what, log=log, place=place, source=line.text if line else "", hint=hint_for(words))
