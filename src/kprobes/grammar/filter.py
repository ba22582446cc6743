"""The kernel's event filters: `count > 100 && comm ~ "cat*"`, parsed and judged as `events/.../filter` does.

    parse_filter(text, fields, kernel)     an `Expression`, or `DefinitionError` with the message and column of the log
    matches(expression, record)            whether a record passes

Source: Documentation/trace/events.rst, and the answers of the kernels.
"""

from __future__ import annotations

from errno import EINVAL, EPERM

from kprobes.errors import DefinitionError
from kprobes.frozen import replace
from kprobes.grammar.arguments import LETTERS
from kprobes.grammar.cpulist import parse_cpus
from kprobes.grammar.facts import DEFAULT, Dialect, dialect
from kprobes.grammar.numbers import signed as read_signed
from kprobes.grammar.numbers import unsigned as read_unsigned
from kprobes.grammar.predicate import GENERIC, Both, Comparison, Either, Expression, FilterField, Not, matches
from kprobes.grammar.refusal import as_text
from kprobes.grammar.world import UNKNOWN, World

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Sequence

    from kprobes.model.definition import Definition

__all__ = [
    "GENERIC",
    "Both",
    "Comparison",
    "Either",
    "Expression",
    "FilterField",
    "Not",
    "field_of",
    "fields_of",
    "matches",
    "parse_filter",
]

OPERATORS = ("~", "!=", "==", "<=", "<", ">=", ">", "&")
BLANKS = "\t\n\v\f\r \xa0"
MAX_TEXT = 256
MAX_NUMBER = 24
WORD_SIZE = 8
MOST_CPUS = 8192  # that a kernel can be built for
# The kernel returns its own numbers for what isn't balanced as if they were errnos.
_UNOPENED, _UNCLOSED, _UNCLOSED_QUOTE = 1, 2, 3

MESSAGES = {
    "INVALID_OP": "Invalid operator",
    "TOO_MANY_OPEN": "Too many '('",
    "TOO_MANY_CLOSE": "Too few '('",
    "MISSING_QUOTE": "Missing matching quote",
    "MISSING_BRACE_OPEN": "Missing '{'",
    "MISSING_BRACE_CLOSE": "Missing '}'",
    "OPERAND_TOO_LONG": "Operand too long",
    "EXPECT_STRING": "Expecting string field",
    "EXPECT_DIGIT": "Expecting numeric field",
    "ILLEGAL_FIELD_OP": "Illegal operation for field type",
    "FIELD_NOT_FOUND": "Field not found",
    "ILLEGAL_INTVAL": "Illegal integer value",
    "TOO_MANY_PREDS": "Too many terms in predicate expression",
    "INVALID_CPULIST": "Invalid cpulist",
    "INVALID_VALUE": "Invalid value (did you forget quotes)?",
    "NO_FUNCTION": "Function not found",
    "ERRNO": "Error",
}
_NO_BOUNDS = "the bounds of functions are not known here"
HINTS = {
    _NO_BOUNDS: "they are told by the symbols of a kernel, not in a process: compare addresses by < and >=",
    "INVALID_OP": "operators are == != < <= > >= & for numbers, == != ~ for strings",
    "TOO_MANY_OPEN": "a brace is not closed",
    "TOO_MANY_CLOSE": "a brace is closed that was not opened",
    "MISSING_QUOTE": "a quote is not closed",
    "MISSING_BRACE_OPEN": "a list of CPUs is CPUS{0-3,7}",
    "MISSING_BRACE_CLOSE": "a list of CPUs is CPUS{0-3,7}",
    "OPERAND_TOO_LONG": "numbers have 23 characters at most, strings 255",
    "EXPECT_STRING": "the field is a string: put the value into quotes",
    "EXPECT_DIGIT": "the field is a number: leave the quotes out",
    "ILLEGAL_FIELD_OP": "strings take == != ~, numbers all but ~",
    "ILLEGAL_INTVAL": "the value is no number that the field's sign allows",
    "TOO_MANY_PREDS": "join comparisons by && or ||",
    "INVALID_CPULIST": "a list of CPUs is CPUS{0-3,7}, and all of them are ones that the machine can have",
    "NO_FUNCTION": "what follows is a name or an address, up to the next blank, of the kernel or a loaded module",
    "INVALID_VALUE": "a value is a number, or a string in quotes",
    "ERRNO": "a comparison is FIELD OPERATOR VALUE",
}


def field_of(declaration: str, name: str, size: int, signed: bool) -> FilterField:
    """Return the field *name* that a format file declares with the C type *declaration* (with its `[]`)."""
    elsewhere = "__data_loc" in declaration or "__rel_loc" in declaration
    is_text = "char" in declaration and ("[" in declaration or elsewhere)
    fixed = is_text and not elsewhere
    return FilterField(name, size, signed, is_text or declaration in {"char *", "const char *"}, fixed)


def fields_of(definition: Definition) -> list[FilterField]:
    """Return the fields that the event of *definition* has besides the `GENERIC` ones, as its format file declares
    them."""
    common = [
        FilterField("common_type", 2),
        FilterField("common_flags", 1),
        FilterField("common_preempt_count", 1),
        FilterField("common_pid", 4, signed=True),
    ]
    where = ("__probe_func", "__probe_ret_ip") if definition.is_return else ("__probe_ip",)
    fields = [*common, *(FilterField(name, 8) for name in where)]
    for one in definition.arguments:
        kind = one.type
        fields.append(FilterField(one.name, kind.size * (one.count or 1), kind.signed, kind.string))
    return fields


def parse_filter(
    text: str, fields: Sequence[FilterField], kernel: str | Dialect = DEFAULT, world: World = UNKNOWN
) -> Expression | None:
    """Return what *text* means for records of *fields* (`GENERIC` ones are added); None for `0`, which clears a filter.

    `FIELD.function == NAME` and `CPUS{...}` become comparisons with the bounds that the *world*'s symbols tell, and
    with its CPUs.

    Raises:
        DefinitionError: the kernel refuses it. Also `.function` in a world without symbols.
    """
    if not text.isascii():
        text = text.encode("utf-8", "surrogateescape").decode("latin-1")
    text = text.rstrip(BLANKS)
    if text.lstrip(BLANKS) == "0":
        return None
    language = dialect(kernel) if isinstance(kernel, str) else kernel
    try:
        return _Parser(text, {one.name: one for one in (*GENERIC, *fields)}, language, world).parse()
    except _Refused as refused:
        column = refused.column if language.long_carets else refused.column % 256
        place = (as_text(text if language.long_carets else text[:243]), column)
        code = refused.code
        message = MESSAGES.get(code, code)
        names = ", ".join(one.name for one in fields)
        hint = f"there are {names}, cpu, comm" if code == "FIELD_NOT_FOUND" else HINTS.get(code, "")
        raise DefinitionError(message, refused.number, code=code, place=place, hint=hint) from None


class _Refused(Exception):
    def __init__(self, code: str, column: int = 0, number: int = EINVAL) -> None:
        super().__init__(code)
        self.code = code
        self.column = column
        self.number = number


class _Parser:
    """Goes through a filter once, as the kernel does after it has counted quotes, braces and comparisons."""

    def __init__(self, text: str, fields: dict[str, FilterField], language: Dialect, world: World) -> None:
        self._text = text
        self._fields = fields
        self._language = language
        self._world = world
        self._at = 0

    def parse(self) -> Expression:
        """Return the expression.

        Raises:
            _Refused: as the kernel does.
        """
        _check_balance(self._text)
        return self._any()

    def _any(self) -> Expression:
        """Parse what `||` joins, up to a closing brace or the end."""
        parts = [self._all()]
        while self._take("||"):
            if self._is_at_end():  # the kernel lets an operator stand at the end
                break
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def _all(self) -> Expression:
        parts = [self._one()]
        while self._take("&&"):
            if self._is_at_end():
                break
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else Both(tuple(parts))

    def _one(self) -> Expression:
        self._skip()
        inverted = False
        while self._peek() == "!" and self._text[self._at + 1 : self._at + 2] not in {"=", "~"}:
            inverted = not inverted
            self._at += 1
            self._skip()
        if self._peek() == "(":
            self._at += 1
            inner = self._any()
            self._close()
        else:
            inner = self._comparison()
        return Not(inner) if inverted else inner

    def _close(self) -> None:
        """Take the brace that ends a group: the balance says that there is one, if not here."""
        self._skip()
        if self._peek() != ")":
            raise _Refused("TOO_MANY_PREDS", self._at, EPERM)
        self._at += 1

    def _take(self, operator: str) -> bool:
        """Take *operator* if it comes next; refuse what neither joins nor ends."""
        self._skip()
        here = self._text[self._at : self._at + 2]
        if here == operator:
            self._at += 2
            return True
        if here in {"&&", "||"} or here[:1] in {"", ")"}:
            return False
        raise _Refused("TOO_MANY_PREDS", self._at, EPERM)

    def _is_at_end(self) -> bool:
        self._skip()
        return self._at == len(self._text)

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _skip(self) -> None:
        while self._at < len(self._text) and self._text[self._at] in BLANKS:
            self._at += 1

    def _comparison(self) -> Expression:
        name = _word(self._text, self._at)
        if not name:
            raise _Refused("ERRNO", 0, EPERM)
        self._at += len(name)
        field = self._fields.get(name)
        if field is None:
            raise self._refuse("FIELD_NOT_FOUND")
        user = self._text.startswith(".ustring", self._at)
        if user:
            self._at += len(".ustring")
        function = self._language.btf and self._text.startswith(".function", self._at)
        if function:
            self._at += len(".function")
        self._skip()
        operator = next((one for one in OPERATORS if self._text.startswith(one, self._at)), "")
        if not operator:
            raise self._refuse("INVALID_OP")
        self._at += len(operator)
        self._skip()
        if function:
            return self._function(field, operator)
        if self._language.btf and self._text.startswith("CPUS", self._at):
            return self._cpus(field, operator)
        value = self._value(field, operator)
        if operator == "&" and any(field is one for one in GENERIC):  # of the CPU: the kernel has no such comparison
            return Comparison(replace(field, signed=False), "<", 0)
        return Comparison(field, operator, value, user)

    def _function(self, field: FilterField, operator: str) -> Expression:
        """Parse a name or an address; the field is in the function around it, or not."""
        if field.size != WORD_SIZE:
            raise self._refuse("ILLEGAL_FIELD_OP")
        if operator not in {"==", "!="}:
            raise self._refuse("INVALID_OP")
        symbols = self._world.symbols
        if symbols is None:
            raise _Refused(_NO_BOUNDS, self._at)
        address = self._address() if "0" <= self._peek() <= "9" else symbols.address(self._name())
        span = symbols.span(address) if address else None
        if span is None:
            raise self._refuse("NO_FUNCTION")
        whole = replace(field, signed=False)
        inside = Both((Comparison(whole, ">=", span[0]), Comparison(whole, "<", span[1])))
        return inside if operator == "==" else Not(inside)

    def _address(self) -> int:
        text = _digits(self._text, self._at)
        self._at += len(text)
        if len(text) >= MAX_NUMBER:
            raise self._refuse("OPERAND_TOO_LONG")
        value = read_unsigned(text)
        if value < 0:
            raise self._refuse("INVALID_VALUE")
        return value

    def _name(self) -> str:
        start = self._at
        while self._at < len(self._text) and self._text[self._at] not in BLANKS:
            self._at += 1
        return self._text[start : self._at]

    def _cpus(self, field: FilterField, operator: str) -> Expression:
        """Parse a list of CPUs. With several of them `==` never holds, and `!=` always does: `&` asks for one of them.

        Source: do_filter_scalar_cpumask() of kernel/trace/trace_events_filter.c.
        """
        if field.string or operator not in {"==", "!=", "&"}:
            raise self._refuse("ILLEGAL_FIELD_OP")
        cpus = self._cpu_list()
        whole = replace(field, signed=False)
        if len(cpus) == 1:
            return Comparison(whole, "!=" if operator == "!=" else "==", cpus[0])
        if operator == "!=":
            return Comparison(whole, "<", self._most_cpus)
        if operator == "==" or not cpus:
            return Comparison(whole, "<", 0)
        return Either(tuple(Comparison(whole, "==", one) for one in cpus))

    @property
    def _most_cpus(self) -> int:
        return MOST_CPUS if self._world is UNKNOWN else self._world.cpus

    def _cpu_list(self) -> tuple[int, ...]:
        self._at += len("CPUS") + 1
        if self._text[self._at - 1 : self._at] != "{":
            raise self._refuse("MISSING_BRACE_OPEN")
        end = self._text.find("}", self._at)
        text = self._text[self._at : end if end >= 0 else len(self._text)]
        self._at += len(text)
        if end < 0:
            raise self._refuse("MISSING_BRACE_CLOSE")
        cpus = parse_cpus(text, self._most_cpus) if text else None
        if cpus is None:
            raise self._refuse("INVALID_CPULIST")
        self._at += 1
        return cpus

    def _value(self, field: FilterField, operator: str) -> int | str:
        head = self._peek()
        if head in {"'", '"'}:
            return self._string(field, operator, head)
        if "0" <= head <= "9" or head == "-":
            return self._number(field, operator)
        raise self._refuse("INVALID_VALUE")

    def _string(self, field: FilterField, operator: str, quote: str) -> str:
        if operator not in {"==", "!=", "~"}:
            raise self._refuse("ILLEGAL_FIELD_OP")
        if not field.string:
            raise self._refuse("EXPECT_DIGIT")
        start = self._at + 1
        self._at = self._text.find(quote, start)
        if self._at < 0:
            self._at = len(self._text)
            raise self._refuse("MISSING_QUOTE")
        if self._at - start >= MAX_TEXT:
            raise self._refuse("OPERAND_TOO_LONG")
        self._at += 1
        return self._text[start : self._at - 1]

    def _number(self, field: FilterField, operator: str) -> int:
        if field.string:
            raise self._refuse("EXPECT_STRING")
        if operator == "~":
            raise self._refuse("ILLEGAL_FIELD_OP")
        start = self._at
        if self._peek() == "-":
            self._at += 1
        self._at += len(_digits(self._text, self._at))
        text = self._text[start : self._at]
        if len(text) >= MAX_NUMBER:
            raise self._refuse("OPERAND_TOO_LONG")
        if field.signed:
            value, error = read_signed(text)
        else:
            value = read_unsigned(text)
            error = -value if value < 0 else 0
        if error:
            self._at = start
            raise self._refuse("ILLEGAL_INTVAL")
        return value

    def _refuse(self, code: str) -> _Refused:
        """Return a refusal of what stands here; the kernel counts the columns of comparisons from 1."""
        return _Refused(code, self._at + 1)


def _compiled(pattern: str) -> re.Pattern[str]:
    import re

    return re.compile(pattern)


_WORD = _compiled(f"[{LETTERS}_0-9]*")
_ALNUM = _compiled(f"[{LETTERS}0-9]*")


def _word(text: str, at: int) -> str:
    found = _WORD.match(text, at)
    return found[0] if found else ""


def _digits(text: str, at: int) -> str:
    found = _ALNUM.match(text, at)
    return found[0] if found else ""


def _check_balance(text: str) -> None:
    """Refuse quotes and braces that don't pair, and a filter without a comparison."""
    quote, quoted_at, opened, terms, in_term = "", 0, list[int](), 0, False
    for at, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "()" or (char in "|&" and text[at + 1 : at + 2] == char):
            in_term = False
            _count_braces(char, at, opened)
        elif char not in BLANKS:
            if char in {"'", '"'}:
                quote, quoted_at = char, at
            if not in_term:
                terms, in_term = terms + 1, True
    if quote:
        raise _Refused("MISSING_QUOTE", quoted_at, _UNCLOSED_QUOTE)
    if opened:
        raise _Refused("TOO_MANY_OPEN", opened[-1], _UNCLOSED)
    if not terms:
        raise _Refused("ERRNO")


def _count_braces(char: str, at: int, opened: list[int]) -> None:
    """Keep in *opened* where the braces stand that are open behind *char*."""
    if char == "(":
        opened.append(at)
    elif char == ")":
        if not opened:
            raise _Refused("TOO_MANY_CLOSE", at, _UNOPENED)
        opened.pop()
