"""Integer nodes in LLVM text: wrapping arithmetic, Python's rounding, histogram buckets. Nothing here knows a target.

BPF divides unsigned only (signed division came with cpu v4), so signed division is made of unsigned ones. With
`s` = all ones where the dividend is negative and zero where not, `~` being `xor -1`, for a divisor above zero:

    floor(a / b) = ((a xor s) /u b) xor s          a mod b = (((a xor s) %u b) xor s) + (b and s)
"""

from __future__ import annotations

from kprobes.compiler.back.text import literal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.compiler.back.text import FunctionText
    from kprobes.compiler.ir.nodes import IntType
    from kprobes.model.layout import Buckets

_PLAIN = {"add": "add", "sub": "sub", "mul": "mul", "and": "and", "or": "or", "xor": "xor"}
_SIGNED = {"lt": "slt", "le": "sle", "gt": "sgt", "ge": "sge"}
_UNSIGNED = {"lt": "ult", "le": "ule", "gt": "ugt", "ge": "uge"}


def binary(text: FunctionText, op: str, kind: IntType, left: str, right: str) -> str:
    """Return `left op right` for any operator but `div` and `mod`, which can raise a fault."""
    width = f"i{kind.bits}"
    if op in _PLAIN:
        return text.let(f"{_PLAIN[op]} {width} {left}, {right}")
    count = _shift_count(text, kind.bits, right)
    name = "shl" if op == "shl" else "ashr" if kind.signed else "lshr"
    return text.let(f"{name} {width} {left}, {count}")


def _shift_count(text: FunctionText, bits: int, count: str) -> str:
    if _number(count) is not None:
        return str(int(count) % bits)
    return text.let(f"and i{bits} {count}, {bits - 1}")


def _number(operand: str) -> int | None:
    return None if operand.startswith("%") or operand in ("true", "false") else int(operand)


def divide(text: FunctionText, op: str, kind: IntType, left: str, right: str) -> str:
    """Return `left div right` or `left mod right`; *right* is not zero."""
    width = f"i{kind.bits}"
    plain = "udiv" if op == "div" else "urem"
    if not kind.signed:
        return text.let(f"{plain} {width} {left}, {right}")
    if kind.bits < 64:
        wide = (text.let(f"sext {width} {left} to i64"), _widened(text, width, right))
        return text.let(f"trunc i64 {_divide_signed(text, plain, *wide)} to {width}")
    return _divide_signed(text, plain, left, right)


def _widened(text: FunctionText, width: str, operand: str) -> str:
    return operand if _number(operand) is not None else text.let(f"sext {width} {operand} to i64")


def _divide_signed(text: FunctionText, plain: str, left: str, right: str) -> str:
    number = _number(right)
    if number is not None and number > 0:
        negative = text.let(f"ashr i64 {left}, 63")
        return _divide_positive(text, plain, (left, negative), right)
    # Both signs flipped gives the same quotient. -2**63 stays what it is when flipped, which read unsigned is right,
    # but its sign then has to be taken from before.
    below = text.let(f"icmp slt i64 {right}, 0")
    flipped = text.let(f"sub i64 0, {left}")
    dividend = text.let(f"select i1 {below}, i64 {flipped}, i64 {left}")
    divisor = text.let(f"select i1 {below}, i64 {text.let(f'sub i64 0, {right}')}, i64 {right}")
    above = text.let(f"icmp sgt i64 {left}, 0")
    under = text.let(f"icmp slt i64 {left}, 0")
    is_negative = text.let(f"select i1 {below}, i1 {above}, i1 {under}")
    negative = text.let(f"sext i1 {is_negative} to i64")
    result = _divide_positive(text, plain, (dividend, negative), divisor)
    if plain == "udiv":
        return result
    # The remainder of the flipped division has the flipped sign.
    return text.let(f"select i1 {below}, i64 {text.let(f'sub i64 0, {result}')}, i64 {result}")


def _divide_positive(text: FunctionText, plain: str, dividend: tuple[str, str], divisor: str) -> str:
    value, negative = dividend
    positive = text.let(f"xor i64 {value}, {negative}")
    quotient = text.let(f"{plain} i64 {positive}, {divisor}")
    result = text.let(f"xor i64 {quotient}, {negative}")
    if plain == "udiv":
        return result
    return text.let(f"add i64 {result}, {text.let(f'and i64 {divisor}, {negative}')}")


def compare(text: FunctionText, op: str, kind: IntType, left: str, right: str) -> str:
    """Return the truth value of `left op right`."""
    name = op if op in ("eq", "ne") else (_SIGNED if kind.signed else _UNSIGNED)[op]
    return text.let(f"icmp {name} i{kind.bits} {left}, {right}")


def convert(text: FunctionText, source: IntType, to: IntType, value: str) -> str:
    """Return *value* of type *source* as *to*: truncated, extended by the source's sign, or compared with zero."""
    if to.bits == source.bits:
        return value
    if to.bits == 1:
        return text.let(f"icmp ne i{source.bits} {value}, 0")
    if to.bits < source.bits:
        return text.let(f"trunc i{source.bits} {value} to i{to.bits}")
    extend = "sext" if source.signed and source.bits > 1 else "zext"
    return text.let(f"{extend} i{source.bits} {value} to i{to.bits}")


def bucket(text: FunctionText, buckets: Buckets, kind: IntType, sample: str) -> str:
    """Return the number (i64) of the bucket that *sample*, of 64 bits, falls in."""
    if buckets.scale == "log2":
        return _log2_bucket(text, kind.signed, sample)
    return _linear_bucket(text, buckets, kind.signed, sample)


def opaque(text: FunctionText, value: str, kind: str = "i64") -> str:
    """Return *value* behind an empty asm statement: LLVM can neither move it to another block nor know its range."""
    return text.let(f'call {kind} asm sideeffect "", "=r,0"({kind} {value})')


def unknown(text: FunctionText, value: str, kind: str = "i64") -> str:
    """Return *value* so that LLVM can't know its range; unused it is dropped, and it may be moved."""
    return text.let(f'call {kind} asm "", "=r,0"({kind} {value})')


def _log2_bucket(text: FunctionText, signed: bool, sample: str) -> str:
    """Halve the candidates five times and count: three instructions a step, and the verifier knows each sum.

    Without `opaque` LLVM would turn each step into two selects, which on BPF are two branches.
    """
    end, loop = text.label("bucket"), text.label("log2")
    if signed:
        low = text.label("low")
        text.branch(text.let(f"icmp sgt i64 {sample}, 0"), loop, low)
        text.start(low)
        small = text.let(f"zext i1 {text.let(f'icmp eq i64 {sample}, 0')} to i64")
    else:
        text.branch(text.let(f"icmp ne i64 {sample}, 0"), loop, end)
        small = "1"
    ways = [(small, text.block)]
    if signed:
        text.jump(end)
    text.start(loop)
    value, count = sample, "2"
    for bits in (32, 16, 8, 4, 2, 1):
        value, count = _log2_step(text, bits, value, count)
    ways.append((count, text.block))
    text.start(end)
    return text.phi("i64", ways)


def _log2_step(text: FunctionText, bits: int, value: str, count: str) -> tuple[str, str]:
    shift, after, before = text.label("shift"), text.label("next"), text.block
    # A limit of 2**32 is no immediate: look whether anything is left above instead.
    if bits == 32:
        is_large = text.let(f"icmp ne i64 {text.let(f'lshr i64 {value}, 32')}, 0")
    else:
        is_large = text.let(f"icmp ugt i64 {value}, {(1 << bits) - 1}")
    text.branch(is_large, shift, after)
    text.start(shift)
    smaller = text.let(f"lshr i64 {opaque(text, value)}, {bits}")
    larger = text.let(f"add i64 {count}, {bits}")
    text.start(after)
    return (
        text.phi("i64", [(value, before), (smaller, shift)]),
        text.phi("i64", [(count, before), (larger, shift)]),
    )


def _linear_bucket(text: FunctionText, buckets: Buckets, signed: bool, sample: str) -> str:
    """Sort into steps. The limit is checked where LLVM can't drop the check: verifiers before Linux 6.19 know nothing
    about the result of a division."""
    top = buckets.low + buckets.step * buckets.count
    inside, end, limited = text.label("inside"), text.label("bucket"), text.label("limited")
    above = text.label("above")
    order = "s" if signed else "u"
    ways = []
    if signed or buckets.low > 0:
        is_below = text.let(f"icmp {order}lt i64 {sample}, {literal(buckets.low, 64)}")
        ways.append(("0", text.block))
        text.branch(is_below, end, above)
        text.start(above)
    is_over = text.let(f"icmp {order}ge i64 {sample}, {literal(max(top, 0) if not signed else top, 64)}")
    over = str(buckets.count + 1)
    ways.append((over, text.block))
    text.branch(is_over, end, inside)
    text.start(inside)
    distance = text.let(f"sub i64 {sample}, {literal(buckets.low, 64)}")
    number = opaque(text, text.let(f"udiv i64 {distance}, {buckets.step}"))
    is_wrong = text.let(f"icmp ugt i64 {number}, {buckets.count - 1}")
    ways.append((over, text.block))
    text.branch(is_wrong, end, limited)
    text.start(limited)
    ways.append((text.let(f"add i64 {number}, 1"), text.block))
    text.start(end)
    return text.phi("i64", ways)


__all__ = ["binary", "bucket", "compare", "convert", "divide", "literal", "opaque", "unknown"]
