"""The term of an argument: `+8(%si)`, `$retval`, `@jiffies`, `file->f_pos`.

The kernel compiles a term to operations as it parses it. What is refused, and where the caret stands, depends on how
far it came, so the operations are counted here as it does: `Scan.index` is the operation that is being filled,
`Scan.last` its kind.

Source: the grammar in Documentation/trace/kprobetrace.rst, and the answers of the kernels.
"""

from __future__ import annotations

from errno import EINVAL

from kprobes.grammar import fields
from kprobes.grammar.facts import MAX_STACK
from kprobes.grammar.numbers import decimal, signed, unsigned
from kprobes.grammar.scan import COMM, DATA, ENTRY_DATA, IMMEDIATE, MEMORY, STACK_POINTER, USER_MEMORY, Scan
from kprobes.model.definition import (
    Comm,
    FileAddress,
    FunctionArgument,
    Immediate,
    Memory,
    ReturnValue,
    Stack,
    StackWord,
    SymbolAddress,
    Text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.model.definition import Term


def parse_term(scan: Scan, text: str) -> Term:
    """Parse *text*, leaving in *scan* how far it came.

    Raises:
        Refused: as the kernel does.
    """
    head = text[:1]
    if head == "%":
        register = scan.dialect.machine.registers.get(text[1:])
        if register is None:
            raise scan.refuse("BAD_REG_NAME")
        return register
    if head in {"+", "-"}:
        return _dereference(scan, text)
    if head == "$":
        return _variable(scan, text[1:])
    if head == "@":
        return _memory(scan, text[1:])
    if head == "\\":
        return _immediate(scan, text[1:])
    if scan.dialect.btf and (head == "_" or head.isalpha()):
        if not (scan.site.at_entry or scan.site.at_return):
            raise scan.refuse("NOSUP_BTFARG")
        return fields.parse_variable(scan, text)
    if scan.dialect.typecast and head == "(":
        raise scan.refuse("TYPECAST_NOT_EVENT")
    raise scan.refuse("BAD_FETCH_ARG")


def _dereference(scan: Scan, text: str) -> Term:
    user = text[1:2] == "u"
    rest = text[0] + text[2:] if user else text
    if rest[0] == "+":
        rest = rest[1:]
    brace = rest.find("(")
    if brace < 0:
        raise scan.refuse("DEREF_NEED_BRACE")
    distance, error = signed(rest[:brace], scan.bits)
    if error:
        raise scan.refuse("BAD_DEREF_OFFS", number=error)
    # the kernel's own count, which misses the `u` behind a plus
    scan.offset += brace + 1 + (rest[0] != "-")
    inner = rest[brace + 1 :]
    close = inner.rfind(")")
    if close < 0:
        raise scan.refuse("DEREF_OPEN_BRACE", len(inner))
    here = scan.offset
    base = parse_term(scan, inner[:close])
    scan.offset = here
    if scan.last in {COMM, DATA}:
        raise scan.refuse("COMM_CANT_DEREF")
    scan.step()
    scan.last = USER_MEMORY if user else MEMORY
    scan.type = None
    return Memory(base, distance, user)


def _memory(scan: Scan, text: str) -> Term:
    head = text[:1]
    if "0" <= head <= "9":
        address = unsigned(text, scan.bits)
        if address < 0:
            raise scan.refuse("BAD_MEM_ADDR", number=-address)
        base: Term = Immediate(address)
    elif head == "+":
        if scan.site.in_kernel:
            raise scan.refuse("FILE_ON_KPROBE")
        offset, error = signed(text[1:], scan.bits)
        if error:
            raise scan.refuse("BAD_FILE_OFFS", number=error)
        base = FileAddress(offset)
    else:
        if not scan.site.in_kernel:
            raise scan.refuse("SYM_ON_UPROBE")
        scan.step()
        base = _symbol(text, scan.bits)
    scan.step()
    scan.last = MEMORY
    return Memory(base)


def _symbol(text: str, bits: int) -> SymbolAddress:
    """Return the symbol of `@SYM+off`. An offset that is no number is refused only when the probe is registered."""
    name, distance = split_offset(text)
    offset, error = signed(distance, bits) if distance else (0, 0)
    return SymbolAddress(text) if error else SymbolAddress(name, offset)


def split_offset(text: str) -> tuple[str, str]:
    """Return the symbol and the signed offset (empty where there is none) of *text*."""
    for at, char in enumerate(text):
        if char in {"+", "-"}:
            return text[:at], text[at:]
    return text, ""


def _immediate(scan: Scan, text: str) -> Term:
    if text[:1] == '"':
        body = text[1:]
        if body[-1:] != '"':
            raise scan.refuse("IMMSTR_NO_CLOSE", 2 + len(body))
        scan.last = DATA
        return Text(body[:-1])
    head = text[:1]
    if "0" <= head <= "9":
        value = unsigned(text, scan.bits)
        error = -value if value < 0 else 0
    elif head in {"-", "+"}:
        value, error = signed(text[1:] if head == "+" else text, scan.bits)
    else:
        value, error = 0, EINVAL
    if error:
        raise scan.refuse("BAD_IMM", 1, error)
    scan.last = IMMEDIATE
    return Immediate(value % (1 << scan.bits))


def _variable(scan: Scan, name: str) -> Term:
    """Parse what stands behind a `$`."""
    if name in {"comm", "COMM"}:
        scan.last = COMM
        return Comm()
    if name.startswith("retval") if scan.dialect.btf else name == "retval":
        return _return_value(scan, name)
    if name.startswith("stack"):
        return _stack(scan, name[5:])
    if name.startswith("arg") and (scan.dialect.return_arguments or scan.site.at_entry):
        return _function_argument(scan, name[3:])
    raise scan.refuse("BAD_VAR")


def _return_value(scan: Scan, name: str) -> Term:
    if not scan.site.returning:
        raise scan.refuse("RETVAL_ON_PROBE")
    if scan.site.in_kernel and scan.dialect.btf:
        return fields.parse_variable(scan, f"${name}")
    return ReturnValue()


def _stack(scan: Scan, number: str) -> Term:
    if not number:
        scan.last = STACK_POINTER
        return Stack()
    if not "0" <= number[0] <= "9":
        raise scan.refuse("BAD_VAR")
    index = decimal(number, scan.bits)
    if index < 0:
        raise scan.refuse("BAD_VAR")
    if scan.site.in_kernel and index > MAX_STACK:
        raise scan.refuse("BAD_STACK_NUM")
    return StackWord(index % (1 << 32))


def _function_argument(scan: Scan, number: str) -> Term:
    index = decimal(number, scan.bits)
    if index < 0:
        raise scan.refuse("BAD_VAR")
    if not 1 <= index <= MAX_STACK:
        raise scan.refuse("BAD_ARG_NUM")
    if scan.site.at_return:
        scan.last = ENTRY_DATA
    elif not scan.site.at_entry:
        raise scan.refuse("NOFENTRY_ARGS")
    return FunctionArgument(index - 1)
