"""The kernel's refusals: what it says, and what we add to it.

Source: the texts are those that the kernels write to tracefs `error_log`.
"""

from __future__ import annotations

from errno import EINVAL

from kprobes.errors import DefinitionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.grammar.facts import Dialect

# A column that no reader can tell: some kernels compute it from an address of their own memory.
UNTOLD = -(1 << 40)

_CUT = 256 - len("\n  Command: ") - 1  # of a command in 5.10's log


class Refused(Exception):
    """A refusal inside the parser, which becomes a DefinitionError.

    *code* is empty where the kernel says nothing; the caret stands *offset* bytes into the word *index*.
    """

    def __init__(self, code: str, index: int = 0, offset: int = 0, number: int = EINVAL) -> None:
        super().__init__(code)
        self.code = code
        self.index = index
        self.offset = offset
        self.number = number


MESSAGES = {
    "FILE_NOT_FOUND": "Failed to find the given file",
    "NO_REGULAR_FILE": "Not a regular file",
    "BAD_REFCNT": "Invalid reference counter offset",
    "REFCNT_OPEN_BRACE": "Reference counter brace is not closed",
    "BAD_REFCNT_SUFFIX": "Reference counter has wrong suffix",
    "BAD_UPROBE_OFFS": "Invalid uprobe offset",
    "BAD_MAXACT_TYPE": "Maxactive is only for function exit",
    "BAD_MAXACT": "Invalid maxactive number",
    "MAXACT_TOO_BIG": "Maxactive is too big",
    "BAD_PROBE_ADDR": "Invalid probed address or symbol",
    "NON_UNIQ_SYMBOL": "The symbol is not unique",
    "BAD_RETPROBE": "Retprobe address must be an function entry",
    "BAD_ADDR_SUFFIX": "Invalid probed address suffix",
    "NO_GROUP_NAME": "Group name is not specified",
    "GROUP_TOO_LONG": "Group name is too long",
    "BAD_GROUP_NAME": "Group name must follow the same rules as C identifiers",
    "NO_EVENT_NAME": "Event name is not specified",
    "EVENT_TOO_LONG": "Event name is too long",
    "BAD_EVENT_NAME": "Event name must follow the same rules as C identifiers",
    "EVENT_EXIST": "Given group/event name is already used by another event",
    "RETVAL_ON_PROBE": "$retval is not available on probe",
    "NO_RETVAL": "This function returns 'void' type",
    "BAD_STACK_NUM": "Invalid stack number",
    "BAD_ARG_NUM": "Invalid argument number",
    "BAD_VAR": "Invalid $-variable specified",
    "BAD_REG_NAME": "Invalid register name",
    "BAD_MEM_ADDR": "Invalid memory address",
    "BAD_IMM": "Invalid immediate value",
    "IMMSTR_NO_CLOSE": "String is not closed with '\"'",
    "FILE_ON_KPROBE": "File offset is not available with kprobe",
    "BAD_FILE_OFFS": "Invalid file offset value",
    "SYM_ON_UPROBE": "Symbol is not available with uprobe",
    "TOO_MANY_OPS": "Dereference is too much nested",
    "DEREF_NEED_BRACE": "Dereference needs a brace",
    "BAD_DEREF_OFFS": "Invalid dereference offset",
    "DEREF_OPEN_BRACE": "Dereference brace is not closed",
    "COMM_CANT_DEREF": "$comm can not be dereferenced",
    "BAD_FETCH_ARG": "Invalid fetch argument",
    "ARRAY_NO_CLOSE": "Array is not closed",
    "BAD_ARRAY_SUFFIX": "Array has wrong suffix",
    "BAD_ARRAY_NUM": "Invalid array size",
    "ARRAY_TOO_BIG": "Array number is too big",
    "BAD_TYPE": "Unknown type is specified",
    "BAD_STRING": "String accepts only memory argument",
    "BAD_SYMSTRING": "Symbol String doesn't accept data/userdata",
    "BAD_BITFIELD": "Invalid bitfield",
    "ARG_NAME_TOO_LONG": "Argument name is too long",
    "NO_ARG_NAME": "Argument name is not specified",
    "BAD_ARG_NAME": "Argument name must follow the same rules as C identifiers",
    "USED_ARG_NAME": "This argument name is already used",
    "ARG_TOO_LONG": "Argument expression is too long",
    "NO_ARG_BODY": "No argument expression",
    "BAD_INSN_BNDRY": "Probe point is not an instruction boundary",
    "FAIL_REG_PROBE": "Failed to register probe event",
    "DIFF_PROBE_TYPE": "Probe type is different from existing probe",
    "DIFF_ARG_TYPE": "Argument type or name is different from existing probe",
    "SAME_PROBE": "There is already the exact same probe event",
    "NOSUP_BTFARG": "BTF is not available or not supported",
    "NO_BTFARG": "This variable is not found at this probe point",
    "NO_BTF_ENTRY": "No BTF entry for this probe point",
    "NOFENTRY_ARGS": "$arg* can be used only on function entry or exit",
    "DOUBLE_ARGS": "$arg* can be used only once in the parameters",
    "ARGS_2LONG": "$arg* failed because the argument list is too long",
    "NO_PTR_STRCT": "This is not a pointer to union/structure.",
    "NOSUP_DAT_ARG": "Non pointer structure/union argument is not supported.",
    "BAD_HYPHEN": "Failed to parse single hyphen. Forgot '>'?",
    "NO_BTF_FIELD": "This field is not found.",
    "BAD_BTF_TID": "Failed to get BTF type info.",
    "BAD_TYPE4STR": "This type does not fit for string.",
    "NEED_STRING_TYPE": "$comm and immediate-string only accepts string type",
    "TOO_MANY_ARGS": "Too many arguments are specified",
    "EVENT_TOO_BIG": "Event too big (too many fields?)",
    "TYPECAST_NOT_EVENT": "Typecasts are only for eprobe fields",
    "NO_DYNAMIC_EVENT": "No matching dynamic event type",
}

_SPELLED = {
    ("BAD_VAR", "6.1"): "Invalid $-valiable specified",
    ("BAD_MAXACT_TYPE", "5.10"): "Maxactive is not for kprobe",
    ("BAD_MAXACT_TYPE", "6.1"): "Maxactive is not for kprobe",
}


def message(code: str, dialect: Dialect) -> str:
    """Return what the kernel says of *code*."""
    return _SPELLED.get((code, dialect.name)) or MESSAGES[code]


def as_error(refused: Refused, words: Sequence[str], dialect: Dialect) -> DefinitionError:
    """Return *refused* as users get it; *words* are those of the line as the kernel logs it."""
    from kprobes.grammar.hints import hint_for

    if not refused.code:
        return DefinitionError("", refused.number, hint=hint_for(refused, words, dialect))
    command = " ".join(words)
    column: int | None = sum(len(word) + 1 for word in words[: refused.index])
    assert column is not None
    if refused.offset == UNTOLD:
        column = None
    elif refused.index < len(words):
        column += refused.offset
    if not dialect.long_carets:
        command, column = command[:_CUT], column % 256 if column is not None else None
    return DefinitionError(
        message(refused.code, dialect),
        refused.number,
        code=refused.code,
        place=(as_text(command), column),
        hint=hint_for(refused, words, dialect),
    )


def as_text(line: str) -> str:
    """Return *line*, whose characters stand for bytes, as text."""
    return line if line.isascii() else line.encode("latin-1").decode("utf-8", "surrogateescape")
