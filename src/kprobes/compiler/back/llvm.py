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
# Integer registers only: a detour saves no others.
_NATIVE_FEATURES = "-sse,-sse2,-mmx,-x87,-avx,+soft-float"


@cache
def _set_up() -> None:
    """Bring LLVM up, with what keeps it from ending this process: it does so where a BPF program can't be emitted."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    # More stack than 512 bytes: `object` looks at the code and raises instead.
    llvm.set_option("kprobes", "-bpf-stack-size=65536")
    # Loops stay loops: the formula for a sum takes a product of 128 bits, which BPF has not.
    llvm.set_option("kprobes", "-replexitval=never")


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
    """
    machine = _machine(triple, cpu)
    return bytes(machine.emit_object(_optimised(text, machine)))


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
