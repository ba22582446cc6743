"""The one door to LLVM: assembly text in, an optimised object file out.

LLVM is a library of 180 MB, which takes 10 ms to load: that is begun (`prepare`) before it is known what to compile.
"""

from __future__ import annotations

import atexit
from _thread import allocate_lock, start_new_thread

from kprobes.errors import InternalError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.compiler.back import binding, library

    Llvm = binding.Binding | library.Library
    Machine = binding.Machine | library.Machine
    Module = binding.Module | library.Module

BPF_TRIPLE = "bpfel"
BPF_LAYOUT = "e-m:e-p:64:64-i64:64-i128:128-n32:64-S128"
NATIVE_TRIPLE = "x86_64-unknown-linux-gnu"
NATIVE_LAYOUT = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128"
# A jump of BPF says its distance in 16 bits. Shorter texts, and fewer lines of optimised ones, come nowhere near.
_LONGEST_JUMP, _LARGE_TEXT, _FEW_LINES = 32767, 60_000, 6000
_BPF_CPU, _NATIVE_CPU = "v3", "x86-64"
# Integer registers only: a detour saves no others.
_NATIVE_FEATURES = "-sse,-sse2,-mmx,-x87,-avx,+soft-float"
OPTIONS = (
    # More stack than 512 bytes, where LLVM would end this process: `object` looks at the code and raises instead.
    "-bpf-stack-size=65536",
    # Loops stay loops: the formula for a sum takes a product of 128 bits, which BPF has not.
    "-replexitval=never",
    # Loops that send events or touch maps stay loops too: unrolled they make programs half as long again.
    "-unroll-threshold=80",
)


class TooLongError(Exception):
    """A BPF program of *size* instructions has a jump that is too long for one."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size


class _Compiler:
    """LLVM, loaded when the first machine is asked for, and used by one thread at a time."""

    def __init__(self) -> None:
        self.lock = allocate_lock()
        self._llvm: Llvm | None = None
        self._machines: dict[tuple[str, str], Machine] = {}
        self._waited_for = False

    def machine(self, triple: str, cpu: str) -> Machine:
        """Return what makes code for *triple* and *cpu*; the caller holds the lock."""
        found = self._machines.get((triple, cpu))
        if found is None:
            self._llvm = self._llvm or _load()
            found = self._machines[triple, cpu] = self._make_machine(self._llvm, triple, cpu)
        return found

    def _make_machine(self, llvm: Llvm, triple: str, cpu: str) -> Machine:
        if triple == NATIVE_TRIPLE:
            # Large: every address outside is a 64-bit constant in the code, which can stand anywhere.
            return llvm.make_machine(triple, cpu, _NATIVE_FEATURES, "static", "large")
        if not any(known == triple for known, _ in self._machines):  # LLVM takes an option once
            for option in OPTIONS:
                llvm.set_option(option)
        return llvm.make_machine(triple, cpu)

    def begin(self, triple: str, cpu: str) -> None:
        """Make the machine in a thread of its own. What goes wrong there will with the first who compiles, too."""

        def make() -> None:
            with self.lock:
                try:
                    self.machine(triple, cpu)
                except Exception:  # noqa: BLE001 - see above
                    return

        if (triple, cpu) in self._machines:
            return
        if not self._waited_for:
            atexit.register(self.lock.acquire)  # once: the interpreter doesn't go while the thread is at work
            self._waited_for = True
        start_new_thread(make, ())


def _load() -> Llvm:
    from kprobes.compiler.back.library import Library, find_library

    if path := find_library():
        return Library(path)
    from kprobes.compiler.back.binding import Binding

    return Binding()


_COMPILER = _Compiler()


def prepare(*, native: bool = False) -> None:
    """Begin to load LLVM, for somebody who will compile soon."""
    _COMPILER.begin(*((NATIVE_TRIPLE, _NATIVE_CPU) if native else (BPF_TRIPLE, _BPF_CPU)))


def _optimised(text: str, machine: Machine) -> Module:
    try:
        module = machine.parse(text)
        module.optimise()
    except RuntimeError as error:
        raise InternalError(f"LLVM refuses what the lowering wrote: {error}") from error
    return module


def compile_object(text: str, triple: str, cpu: str) -> bytes:
    """Return the object file of the LLVM assembly *text* for *triple* and *cpu*, optimised.

    Raises:
        InternalError: LLVM refuses the text.
        TooLongError: BPF can't jump over so much code.
    """
    with _COMPILER.lock:
        machine = _COMPILER.machine(triple, cpu)
        with _optimised(text, machine) as module:
            if triple == BPF_TRIPLE and len(text) > _LARGE_TEXT:
                _refuse_long_jumps(str(module), machine)
            return module.emit(as_object=True)


def _refuse_long_jumps(text: str, machine: Machine) -> None:
    """Raise TooLongError where a jump would go farther than an instruction of BPF can say: LLVM ends the process then.

    It is seen in the assembly, which is made of a copy: making code changes the module.
    """
    if text.count("\n") < _FEW_LINES:
        return
    with machine.parse(text) as copy:
        code = copy.emit(as_object=False).decode()
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


def compile_native(text: str) -> bytes:
    """Return the x86-64 object file of the LLVM assembly *text*, optimised.

    Raises:
        InternalError: LLVM refuses the text.
    """
    return compile_object(text, NATIVE_TRIPLE, _NATIVE_CPU)


def optimised_text(text: str, triple: str, cpu: str) -> str:
    """Return the LLVM assembly after the passes, for looking at."""
    with _COMPILER.lock, _optimised(text, _COMPILER.machine(triple, cpu)) as module:
        return str(module)
