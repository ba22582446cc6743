"""Decode x86-64 code into `Instruction` records, and tell where instructions begin and where control flow goes.

x86-64 code can't be decoded backwards, and from the middle of an instruction it decodes to something else. So a
boundary is only known by a linear sweep from a place that surely is one: the function's start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from iced_x86 import ConstantOffsets, Decoder, FastFormatter, FlowControl, Mnemonic, OpKind, Register
from iced_x86 import Instruction as Native

if TYPE_CHECKING:
    from collections.abc import Sequence

ENDBR64 = b"\xf3\x0f\x1e\xfa"
LONGEST = 15


class Flow:
    """What an instruction does to the instruction pointer."""

    NEXT = "next"
    JUMP = "jump"
    JUMP_INDIRECT = "jump*"
    BRANCH = "branch"
    LOOP = "loop"
    CALL = "call"
    CALL_INDIRECT = "call*"
    RETURN = "return"
    TRANSACTION = "xbegin"
    STOP = "stop"


# After these the next instruction is not run, unless something jumps there.
NO_FALL_THROUGH = frozenset({Flow.JUMP, Flow.JUMP_INDIRECT, Flow.RETURN, Flow.STOP})
CALLS = frozenset({Flow.CALL, Flow.CALL_INDIRECT})
DIRECT = frozenset({Flow.JUMP, Flow.BRANCH, Flow.LOOP, Flow.CALL, Flow.TRANSACTION})

_FLOWS = {
    FlowControl.NEXT: Flow.NEXT,
    FlowControl.UNCONDITIONAL_BRANCH: Flow.JUMP,
    FlowControl.INDIRECT_BRANCH: Flow.JUMP_INDIRECT,
    FlowControl.CONDITIONAL_BRANCH: Flow.BRANCH,
    FlowControl.RETURN: Flow.RETURN,
    FlowControl.CALL: Flow.CALL,
    FlowControl.INDIRECT_CALL: Flow.CALL_INDIRECT,
    FlowControl.INTERRUPT: Flow.NEXT,
    FlowControl.XBEGIN_XABORT_XEND: Flow.NEXT,
    FlowControl.EXCEPTION: Flow.STOP,
}

_SYSTEM_CALLS = frozenset({Mnemonic.SYSCALL, Mnemonic.SYSENTER})

# Why an instruction can't be run anywhere but in its own place. The kernel answers EOPNOTSUPP for these.
_REFUSED: dict[int, str] = {
    Mnemonic.INT3: "a breakpoint (int3) stands here already",
    Mnemonic.INT1: "int1 raises its trap at its own address",
    Mnemonic.UD0: "ud0 raises its signal at its own address",
    Mnemonic.UD1: "ud1 raises its signal at its own address",
    Mnemonic.UD2: "ud2 raises its signal at its own address",
    Mnemonic.RETF: "far return",
    Mnemonic.IRET: "interrupt return",
    Mnemonic.IRETD: "interrupt return",
    Mnemonic.IRETQ: "interrupt return",
    Mnemonic.UIRET: "user-interrupt return",
    Mnemonic.VMCALL: "VMX instruction",
    Mnemonic.VMMCALL: "SVM instruction",
    Mnemonic.VMFUNC: "VMX instruction",
    Mnemonic.VMLAUNCH: "VMX instruction",
    Mnemonic.VMRESUME: "VMX instruction",
    Mnemonic.VMGEXIT: "SVM instruction",
    Mnemonic.TDCALL: "VMX instruction",
    Mnemonic.SEAMCALL: "VMX instruction",
    Mnemonic.SEAMRET: "VMX instruction",
    Mnemonic.ENCLU: "enclave transfer",
    Mnemonic.RSM: "system-management return",
}


class Instruction(NamedTuple):
    """One instruction, as it stands at *address*. (A tuple: whole libraries are decoded, and a dataclass costs 2 µs.)

    *target*: where a direct branch goes, or None. *data*: the address that a RIP-relative operand names, or None.
    *operand_at*, *operand_size*: place and width in *code* of that branch offset or displacement, bytes; 0 if neither.
    *refusal*: why it can't run anywhere else, a few words; empty where it can.
    """

    address: int
    code: bytes
    flow: str
    target: int | None = None
    data: int | None = None
    operand_at: int = 0
    operand_size: int = 0
    refusal: str = ""

    @property
    def end(self) -> int:
        """Return the address of the byte behind it."""
        return self.address + len(self.code)

    @property
    def falls_through(self) -> bool:
        """Tell whether control may reach the next instruction (after a call: when the callee returns)."""
        return self.flow not in NO_FALL_THROUGH

    @property
    def text(self) -> str:
        """Return the assembly text, Intel syntax."""
        return FastFormatter().format(native(self))


def native(instruction: Instruction) -> Native:
    """Return the decoder library's own record of *instruction*; only for use within `arch.x86_64`."""
    return Decoder(64, instruction.code, ip=instruction.address).decode()


def decode(code: bytes, address: int, *, cover: int = 0) -> list[Instruction]:
    """Return the instructions of *code*, which stands at *address*; only as many as *cover* that many bytes, if not 0.

    A byte that begins no instruction, or one that is cut off by the end, gives an `Instruction` of one byte that has
    a refusal, so that the sweep goes on and lengths add up.
    """
    decoder = Decoder(64, code, ip=address)
    found: list[Instruction] = []
    add, new = found.append, tuple.__new__  # half of the time that a named tuple takes to be made
    position = 0
    for item in decoder:
        length = item.len
        raw = code[position : position + length]
        if item.flow_control == _NEXT and item.memory_base not in _IP_REGISTERS and not item.is_privileged:
            add(new(Instruction, (address + position, raw, _GOES_ON, None, None, 0, 0, "")))
        elif item.is_invalid:
            raw, length = raw[:1], 1
            decoder.position, decoder.ip = position + 1, address + position + 1
            add(Instruction(address + position, raw, Flow.STOP, refusal="not an instruction"))
        else:
            add(_special(item, raw, decoder.get_constant_offsets(item)))
        position += length
        if position >= cover > 0:
            break
    return found


_NEXT = FlowControl.NEXT
_GOES_ON = Flow.NEXT
_IP_REGISTERS = frozenset({Register.RIP, Register.EIP})


def _special(item: Native, raw: bytes, constants: ConstantOffsets) -> Instruction:
    """Return the record of an instruction that has to do with the instruction pointer."""
    flow = flow_of(item)
    refusal = _refusal(item, raw, flow)
    if item.op0_kind == OpKind.NEAR_BRANCH64:
        at, size = constants.immediate_offset, constants.immediate_size
        return Instruction(item.ip, raw, flow, item.near_branch_target, None, at, size, refusal)
    if item.is_ip_rel_memory_operand:
        at, size = constants.displacement_offset, constants.displacement_size
        return Instruction(item.ip, raw, flow, None, item.ip_rel_memory_address, at, size, refusal)
    return Instruction(item.ip, raw, flow, refusal=refusal)


def flow_of(item: Native) -> str:
    """Return the `Flow` of the decoder library's record."""
    mnemonic = item.mnemonic
    if mnemonic in _SYSTEM_CALLS:
        return Flow.NEXT
    if mnemonic == Mnemonic.XBEGIN:
        return Flow.TRANSACTION
    if item.is_loop or item.is_loopcc or item.is_jcx_short:
        return Flow.LOOP
    return _FLOWS[item.flow_control]


def _refusal(item: Native, raw: bytes, flow: str) -> str:
    refusal = _REFUSED.get(item.mnemonic, "")
    if refusal:
        return refusal
    if item.is_privileged:
        return "privileged instruction"
    if item.is_call_far or item.is_call_far_indirect or item.is_jmp_far or item.is_jmp_far_indirect:
        return "far call or jump"
    if item.mnemonic == Mnemonic.INT and item.immediate8 != 0x80:
        return f"int {item.immediate8:#x} raises its trap at its own address"
    if flow == Flow.TRANSACTION and raw[:1] == b"\x66":
        return "xbegin with a 16-bit offset"
    if (flow in DIRECT or flow == Flow.CALL_INDIRECT) and _is_narrowed(raw):
        return "a 16-bit branch on AMD, a 64-bit one on Intel"
    return _call_refusal(item) if flow == Flow.CALL_INDIRECT else ""


def _call_refusal(item: Native) -> str:
    """Return why an indirect call can't be done as a push of the return address and a jump."""
    if item.op0_register == Register.RSP:
        return "call through the stack pointer"
    below_stack = item.memory_displacement >= 2**64 - 8 or 2**32 - 8 <= item.memory_displacement < 2**32
    if item.memory_base in _STACK_POINTERS and below_stack:
        return "call through the place of its own return address"
    return ""


_STACK_POINTERS = frozenset({Register.RSP, Register.ESP})


_LEGACY_PREFIXES = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")


def _is_narrowed(raw: bytes) -> bool:
    """Tell whether a branch has an operand-size prefix that no REX.W overrules.

    `data16 rex.W call __tls_get_addr` is common and harmless; without REX.W the two makers disagree (SDM vol. 2, CALL).
    """
    narrowed = False
    for byte in raw:
        if byte not in _LEGACY_PREFIXES:
            return narrowed and not 0x48 <= byte <= 0x4F
        narrowed = narrowed or byte == 0x66
    return False


def boundaries(code: bytes, start: int) -> list[int]:
    """Return the addresses at which instructions begin, by a linear sweep of *code* from *start*."""
    return [item.ip for item in Decoder(64, code, ip=start)]


def is_boundary(code: bytes, function_start: int, address: int) -> bool:
    """Tell whether an instruction begins at *address*; *code* begins at *function_start*. EILSEQ, if not."""
    if not function_start <= address < function_start + len(code):
        return False
    decoder = Decoder(64, code, ip=function_start)
    while decoder.ip < address:
        decoder.decode()
    return decoder.ip == address


def branch_targets(code: bytes, start: int) -> set[int]:
    """Return every address to which a direct jump, branch, call, loop or xbegin in *code* goes.

    Addresses in and outside of *code* alike. About 0.25 µs an instruction.
    """
    found = {item.near_branch_target for item in Decoder(64, code, ip=start)}
    found.discard(0)
    return found


def skip_endbr(code: bytes, start: int) -> int:
    """Return the address of a function's first real instruction: behind the ENDBR64, if it begins with one.

    The kernel takes +0 and +4 of such a function for the same place, its entry.
    """
    return start + len(ENDBR64) if code.startswith(ENDBR64) else start


def exits(instructions: Sequence[Instruction], start: int, end: int) -> list[Instruction]:
    """Return the instructions by which control leaves the function `[start, end)` for good.

    Returns, and jumps to other functions (tail calls): direct ones that go outside, and indirect ones; whether an
    indirect jump is a tail call or a switch is for `code.Function` to tell.
    """
    return [
        item
        for item in instructions
        if item.flow in (Flow.RETURN, Flow.JUMP_INDIRECT)
        or (item.flow in (Flow.JUMP, Flow.BRANCH) and item.target is not None and not start <= item.target < end)
    ]
