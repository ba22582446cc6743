"""BPF programs: relocated, loaded, and the verifier's answer brought to the Python line."""

from __future__ import annotations

import errno
import os
import struct

from kprobes.engines.kernel import syscall
from kprobes.engines.kernel.syscall import AttachType, LogLevel, ProgramRequest, ProgramType
from kprobes.errors import InternalError
from kprobes.frozen import dataclass
from kprobes.model.plan import Way

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from kprobes.errors import KprobesError
    from kprobes.model.plan import Program

_LD_IMM64 = 0x18
_PSEUDO_MAP_FD, _PSEUDO_MAP_VALUE = 1, 2

_LOG_SIZE = 1 << 20

_TYPES = {
    Way.FENTRY: (ProgramType.TRACING, AttachType.FENTRY),
    Way.FEXIT: (ProgramType.TRACING, AttachType.FEXIT),
    Way.KPROBE_MULTI: (ProgramType.KPROBE, AttachType.KPROBE_MULTI),
    Way.KRETPROBE_MULTI: (ProgramType.KPROBE, AttachType.KPROBE_MULTI),
    Way.TRACEPOINT: (ProgramType.TRACEPOINT, AttachType.NONE),
    Way.RAW_TRACEPOINT: (ProgramType.RAW_TRACEPOINT, AttachType.NONE),
}


@dataclass(frozen=True, slots=True)
class Binding:
    """What a load adds to a program: its *site* number, the function it is for (*btf_id* in *btf*, 0 for vmlinux), and
    whether it is for a uprobe.multi link."""

    site: int = 0
    btf_id: int = 0
    btf: int = 0
    multi: bool = False


def relocate(program: Program, maps: Mapping[str, int], site: int) -> bytes:
    """Return the instructions of *program* with map descriptors and the *site* number written in.

    Raises:
        InternalError: a relocation does not sit on an `ld_imm64`, or names an unknown map.
    """
    code = bytearray(program.instructions)
    for relocation in program.relocations:
        at = relocation.index * 8
        if not 0 <= at <= len(code) - 16 or code[at] != _LD_IMM64:
            raise InternalError(f"program {program.name} has no ld_imm64 at instruction {relocation.index}")
        target = code[at + 1] & 0x0F
        if relocation.kind == "site":
            source, low, high = 0, site, 0
        elif relocation.map not in maps:
            raise InternalError(f"program {program.name} refers to the map {relocation.map!r}, which the plan lacks")
        elif relocation.kind == "map":
            source, low, high = _PSEUDO_MAP_FD, maps[relocation.map], 0
        else:
            source, low, high = _PSEUDO_MAP_VALUE, maps[relocation.map], relocation.addend
        struct.pack_into("<BBhI", code, at, _LD_IMM64, target | source << 4, 0, low)
        struct.pack_into("<BBhI", code, at + 8, 0, 0, 0, high)
    return bytes(code)


class Loader:
    """Loads the programs of one plan; keeps the BTF of the handlers open until closed."""

    def __init__(self, maps: Mapping[str, int]) -> None:
        self._maps = maps
        self._btf: dict[bytes, int] = {}

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def load(self, program: Program, binding: Binding) -> int:
        """Return the descriptor of *program* for *binding*.

        Raises:
            VerifierError: refused, with the Python line.
            PrivilegeError, SyscallError: not even looked at.
        """
        request = self._request(program, binding)
        result, _ = syscall.prog_load(request)
        if result >= 0:
            return result
        # The words alone first: a program that takes too many steps would write each of them, for minutes if emulated.
        again, log = syscall.prog_load(request, LogLevel.WORDS, _LOG_SIZE)
        if -again not in (errno.E2BIG, errno.EPERM) and again < 0:
            again, steps = syscall.prog_load(request, LogLevel.INSTRUCTIONS, _LOG_SIZE)
            log = log if -again == errno.ENOSPC else steps
        if again < 0:
            raise _refusal(program, -result, log)
        return again

    def _request(self, program: Program, binding: Binding) -> ProgramRequest:
        kind, attach_type = _TYPES.get(program.way, (ProgramType.KPROBE, AttachType.NONE))
        btf = self._handler_btf(program.btf)
        return ProgramRequest(
            name=program.name,
            type=kind,
            instructions=relocate(program, self._maps, binding.site),
            license=program.license,
            attach_type=AttachType.UPROBE_MULTI if binding.multi else attach_type,
            btf=btf,
            func_info=program.func_info if btf else b"",
            line_info=program.line_info if btf else b"",
            attach_btf_id=binding.btf_id,
            attach_btf=binding.btf,
        )

    def _handler_btf(self, blob: bytes) -> int:
        if not blob:
            return 0
        if blob not in self._btf:
            self._btf[blob] = syscall.btf_load(blob)
        return self._btf[blob]

    def close(self) -> None:
        """Let go of the BTF; loaded programs keep their own hold on it."""
        while self._btf:
            os.close(self._btf.popitem()[1])


def _refusal(program: Program, number: int, log: str) -> KprobesError:
    if number == errno.EPERM and not log.strip():
        return syscall.failure(f"loading the program {program.name}", number)
    from kprobes.engines.kernel.verifier import verifier_error  # needs `re`, which takes 10 ms

    return verifier_error(program, number, log)
