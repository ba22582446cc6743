"""Programs that every verifier refuses, each in its own way; also run on other kernels to capture their logs.

Each has the instruction that is at fault (None: the log does not say) and the words that all kernels use of it.
"""

from bpf_assembly import (
    EXIT,
    MAP_LOOKUP,
    PROBE_READ_KERNEL,
    R0,
    R1,
    R2,
    R3,
    R6,
    R7,
    R10,
    RING_RESERVE,
    RING_SUBMIT,
    Code,
    addi,
    call,
    ja,
    jeqi,
    jnei,
    load,
    mov,
    movi,
    op,
    put,
    type_information,
)

ARGUMENT = load(8, R6, R1, 112)  # r6 = pt_regs.di


def programs():
    """Return name -> (code, license, instruction at fault, words)."""
    looked_up = Code().add(put(4, R10, -8, 7)).map(R1, "stats").add(mov(R2, R10), addi(R2, -8), call(MAP_LOOKUP))
    unbounded = Code().add(ARGUMENT).value(R1, "stats")
    odd = Code().add(mov(R6, R1), movi(R0, 0), jeqi(R6, 0, 3)).value(R2, "stats").add(ja(1), mov(R2, R6))
    record = Code().map(R1, "ring").add(movi(R2, 16), movi(R3, 0), call(RING_RESERVE))
    length = Code().add(ARGUMENT, mov(R1, R10), addi(R1, -64), mov(R2, R6), movi(R3, 0))
    return {
        "value": (Code().value(R1, "stats").add(load(8, R0, R1, 4096), EXIT), 2, "invalid access to map value"),
        "unset": (Code().add(mov(R0, R6), EXIT), 0, "R6 !read_ok"),
        "scalar": (Code().add(load(8, R1, R1, 112), load(8, R0, R1, 0), EXIT), 1, "R1 invalid mem access"),
        "endless": (Code().add(ARGUMENT, movi(R0, 0), jeqi(R6, 7, 1), ja(-2), EXIT), 2, "infinite loop detected"),
        "unreachable": (Code().add(movi(R0, 0), EXIT, movi(R0, 1), EXIT), 2, "unreachable insn 2"),
        "helper": (Code().add(call(9999), EXIT), 0, "invalid func"),
        "licence": (Code().add(movi(R1, 0), call(6), EXIT), 1, "GPL-restricted"),
        "context": (Code().add(load(8, R0, R1, 4000), EXIT), 0, "invalid bpf_context access off=4000 size=8"),
        "absent": (looked_up.add(load(8, R0, R0, 0), EXIT), 6, "invalid mem access 'map_value_or_null'"),
        "unbounded": (unbounded.add(op(0x0F, R1, R6), load(8, R0, R1, 0), EXIT), 3, "unbounded min value"),
        "frame": (Code().add(movi(R10, 1), EXIT), 0, "frame pointer is read only"),
        "steps": (Code().add(ARGUMENT, movi(R7, 0), addi(R7, 1), op(0xAD, R7, R6, -2), movi(R0, 0), EXIT), None, ""),
        "no end": (Code().add(movi(R0, 0)), None, "last insn is not an exit or jmp"),
        "far": (Code().add(put(8, R10, -520, 0), movi(R0, 0), EXIT), 0, "invalid"),
        "misaligned": (Code().add(put(8, R10, -13, 0), movi(R0, 0), EXIT), 0, "misaligned stack access"),
        "argument": (Code().add(movi(R1, 5), mov(R2, R10), call(MAP_LOOKUP), EXIT), 2, "expected=map_ptr"),
        "multiplied": (Code().add(op(0x27, R1, imm=3), movi(R0, 0), EXIT), 0, "pointer arithmetic with *= operator"),
        "added": (Code().add(op(0x0F, R1, R10), movi(R0, 0), EXIT), 0, "pointer += pointer prohibited"),
        "unreleased": (record.copy().add(movi(R0, 0), EXIT), 6, "Unreleased reference"),
        "record absent": (record.copy().add(put(8, R0, 0, 1), movi(R0, 0), EXIT), 5, "_or_null'"),
        "beyond": (
            record.copy().add(
                jnei(R0, 0, 1), EXIT, put(8, R0, 16, 1), mov(R1, R0), movi(R2, 0), call(RING_SUBMIT), EXIT
            ),
            7,
            "invalid access to memory, mem_size=16 off=16 size=8",
        ),
        "jumps": (
            Code().add(ARGUMENT, movi(R7, 0), addi(R7, 1), op(0x2D, R7, R6, 1), ja(-3), movi(R0, 0), EXIT),
            None,
            "jumps is too complex",
        ),
        "outside": (Code().add(ja(50), EXIT), 0, "jump out of range"),
        "zero": (Code().add(movi(R0, 1), op(0x37, R0), EXIT), 1, "div by zero"),
        "shifted": (Code().add(movi(R0, 1), op(0x67, R0, imm=64), EXIT), 1, "invalid shift 64"),
        "length": (length.add(call(PROBE_READ_KERNEL), movi(R0, 0), EXIT), 5, "R2"),
        "wrong map": (
            Code().map(R1, "stats").add(movi(R2, 16), movi(R3, 0), call(RING_RESERVE), EXIT),
            4,
            "cannot pass map_type",
        ),
        "two sorts": (
            odd.add(load(8, R0, R2, 0), movi(R0, 0), EXIT),
            7,
            "same insn cannot be used with different pointers",
        ),
        "foreign": (Code().add(call(26), EXIT), 0, "skb_load_bytes"),
        "lines": (
            Code().add(ARGUMENT, movi(R7, 2), mov(R1, R7), load(8, R0, R1, 8), EXIT),
            3,
            "R1 invalid mem access",
        ),
    }


LINES = ((0, 10, "def probe(pointer):"), (1, 11, "    number = 2"), (2, 12, "    return number.field  # ; odd"))


def program(name):
    """Return the `Program` called *name*."""
    code = programs()[name][0]
    more = {"license": "MIT" if name == "licence" else "GPL"}
    if name == "lines":
        more.update(zip(("btf", "func_info", "line_info"), type_information("probe", LINES), strict=True))
    return code.program("kprobe", **more)
