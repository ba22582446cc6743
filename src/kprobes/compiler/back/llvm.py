"""The one door to LLVM: assembly text in, an optimised object file out.

Importing llvmlite costs 50 ms or more, so this module is imported only where code has to be compiled.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from kprobes.compiler.back.light import light_imports
from kprobes.errors import InternalError

with light_imports():
    import llvmlite.binding as llvm

if TYPE_CHECKING:
    from llvmlite.binding import ModuleRef, TargetMachine

BPF_TRIPLE = "bpfel"
BPF_LAYOUT = "e-m:e-p:64:64-i64:64-i128:128-n32:64-S128"
NATIVE_TRIPLE = "x86_64-unknown-linux-gnu"
NATIVE_LAYOUT = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
# A jump of BPF says its distance in 16 bits. Shorter texts, and fewer lines of optimised ones, come nowhere near.
_LONGEST_JUMP, _LARGE_TEXT, _FEW_LINES = 32767, 60_000, 6000
# Integer registers only: a detour saves no others.
_NATIVE_FEATURES = "-sse,-sse2,-mmx,-x87,-avx,+soft-float"


class TooLongError(Exception):
    """A BPF program of *size* instructions has a jump that is too long for one."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size


@cache
def _set_up() -> None:
    """Bring LLVM up, with what keeps it from ending this process: it does so where a BPF program can't be emitted."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    # More stack than 512 bytes: `object` looks at the code and raises instead.
    llvm.set_option("kprobes", "-bpf-stack-size=65536")
    # Loops stay loops: the formula for a sum takes a product of 128 bits, which BPF has not.
    llvm.set_option("kprobes", "-replexitval=never")
    # Loops that send events or touch maps stay loops too: unrolled they make programs half as long again.
    llvm.set_option("kprobes", "-unroll-threshold=80")


@cache
def _machine(triple: str, cpu: str) -> TargetMachine:
    _set_up()
    return llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, opt=2)


def _optimised(text: str, machine: TargetMachine) -> ModuleRef:
    try:
        module = llvm.parse_assembly(text)
        module.verify()
    except RuntimeError as error:
        raise InternalError(f"LLVM refuses what the lowering wrote: {error}") from error
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return module


def compile_object(text: str, triple: str, cpu: str) -> bytes:
    """Return the object file of the LLVM assembly *text* for *triple* and *cpu*, optimised.

    Raises:
        InternalError: LLVM refuses the text.
        TooLongError: BPF can't jump over so much code.
    """
    machine = _machine(triple, cpu)
    module = _optimised(text, machine)
    if triple == BPF_TRIPLE and len(text) > _LARGE_TEXT:
        _refuse_long_jumps(str(module), machine)
    return bytes(machine.emit_object(module))


def _refuse_long_jumps(text: str, machine: TargetMachine) -> None:
    """Raise TooLongError where a jump would go farther than an instruction of BPF can say: LLVM ends the process then.

    It is seen in the assembly, which is made of a copy: making code changes the module.
    """
    if text.count("\n") < _FEW_LINES:
        return
    code = machine.emit_assembly(llvm.parse_assembly(text))
    at, labels, jumps = 0, {}, []
    for line in code.splitlines():
        if line[:1] not in ("\t", " "):
            labels[line.partition(":")[0]] = at
            continue
        words = line.split()
        if words and words[0][0] not in ".#;":
            at += 2 if words[-1] == "ll" else 1
            if "goto" in words:
                jumps.append((at, words[words.index("goto") + 1]))
    longest = max((abs(labels.get(label, start) - start) for start, label in jumps), default=0)
    if longest > _LONGEST_JUMP:
        raise TooLongError(at)


@cache
def _native_machine() -> TargetMachine:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    llvm.initialize_native_asmparser()
    # Large: every address outside is a 64-bit constant in the code, which can stand anywhere.
    return llvm.Target.from_triple(NATIVE_TRIPLE).create_target_machine(
        cpu="x86-64", features=_NATIVE_FEATURES, opt=2, reloc="static", codemodel="large"
    )


def compile_native(text: str) -> bytes:
    """Return the x86-64 object file of the LLVM assembly *text*, optimised.

    Raises:
        InternalError: LLVM refuses the text.
    """
    machine = _native_machine()
    return bytes(machine.emit_object(_optimised(text, machine)))


def optimised_text(text: str, triple: str, cpu: str) -> str:
    """Return the LLVM assembly after the passes, for looking at."""
    return str(_optimised(text, _machine(triple, cpu)))
