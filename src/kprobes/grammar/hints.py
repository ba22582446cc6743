"""What to do about a refusal, in our own words."""

from __future__ import annotations

from errno import E2BIG, EINVAL, ENOENT

from kprobes.grammar.facts import FEATURES, KERNELS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.grammar.facts import Dialect, Machine
    from kprobes.grammar.refusal import Refused

HINTS = {
    "FILE_NOT_FOUND": "a uprobe is written PATH:OFFSET, with the path of a file that exists",
    "BAD_REG_NAME": "registers are ax bx cx dx si di bp sp r8 ... r15 ip flags cs ss orig_ax, without the r of rax",
    "BAD_MEM_ADDR": "an address is a number of 64 bits: @0xffffffff81000000",
    "NO_REGULAR_FILE": "uprobes go into regular files: programs and libraries",
    "BAD_REFCNT": "a reference counter is a file offset in parentheses: PATH:OFFSET(0x1234)",
    "REFCNT_OPEN_BRACE": "a reference counter is a file offset in parentheses: PATH:OFFSET(0x1234)",
    "BAD_REFCNT_SUFFIX": "nothing stands behind a reference counter; %return stands before it",
    "BAD_BTF_TID": "the kernel has no description of this structure: use +OFFSET(...)",
    "NO_DYNAMIC_EVENT": "kprobe and uprobe lines begin with p (probe), r (return probe) or - (delete)",
    "BAD_UPROBE_OFFS": "the offset in the file is a number: 0x1234",
    "BAD_MAXACT_TYPE": "only return probes have MAXACTIVE: r10:name FUNCTION",
    "BAD_MAXACT": "MAXACTIVE is a number from 1 to 4096; leave it out for the kernel's own choice",
    "MAXACT_TOO_BIG": "MAXACTIVE is 4096 at most",
    "BAD_PROBE_ADDR": "a place is FUNCTION, FUNCTION+OFFSET, MODULE:FUNCTION or 0xADDRESS; in a program PATH:OFFSET",
    "NON_UNIQ_SYMBOL": "several functions have this name: give the address (0x...) of the one you mean",
    "BAD_RETPROBE": "a return probe goes to a function's entry: leave the offset out",
    "BAD_ADDR_SUFFIX": "the only suffix of a place is %return",
    "NO_GROUP_NAME": "a group's name stands before the slash: p:GROUP/EVENT",
    "GROUP_TOO_LONG": "names have 63 characters at most",
    "BAD_GROUP_NAME": "names have letters, digits and underscores, no digit first",
    "NO_EVENT_NAME": "an event's name stands behind the colon; leave the colon out for a default name",
    "EVENT_TOO_LONG": "names have 63 characters at most",
    "BAD_EVENT_NAME": "names have letters, digits and underscores, no digit first",
    "EVENT_EXIST": "choose another name: this one belongs to an event of another kind",
    "RETVAL_ON_PROBE": "there is a return value on return probes only: r FUNCTION, or FUNCTION%return",
    "NO_RETVAL": "the function returns nothing: leave $retval out",
    "BAD_STACK_NUM": "a kernel stack has 2048 words: $stack0 to $stack2048",
    "BAD_ARG_NUM": "arguments are counted from 1: $arg1",
    "BAD_VAR": "variables are $stack, $stackN, $retval, $comm and, where the place is a function's entry, $argN",
    "BAD_IMM": 'an immediate is a number (\\123, \\-1, \\0x10) or a string (\\"text")',
    "IMMSTR_NO_CLOSE": "an immediate string ends with a quote and holds no blanks",
    "FILE_ON_KPROBE": "@+OFFSET is an offset in a file, for uprobes; in the kernel write @SYMBOL or @ADDRESS",
    "BAD_FILE_OFFS": "the offset in the file is a number: @+0x1234",
    "SYM_ON_UPROBE": "a process has no kernel symbols: write @+OFFSET for an offset in its file",
    "TOO_MANY_OPS": "an argument has at most 13 dereferences",
    "DEREF_NEED_BRACE": "a dereference is +OFFSET(WHAT) or -OFFSET(WHAT)",
    "BAD_DEREF_OFFS": "the offset before the brace is a number: +8(%si); write +0(%si) for none",
    "DEREF_OPEN_BRACE": "close the brace: +8(%si)",
    "COMM_CANT_DEREF": "$comm and strings are no addresses",
    "BAD_FETCH_ARG": "an argument is %REGISTER, $VARIABLE, @ADDRESS, +OFFSET(...) or \\IMMEDIATE",
    "ARRAY_NO_CLOSE": "an array is TYPE[COUNT]",
    "BAD_ARRAY_SUFFIX": "nothing stands behind an array's bracket",
    "BAD_ARRAY_NUM": "an array has 1 to 64 elements",
    "ARRAY_TOO_BIG": "an array has 1 to 64 elements",
    "BAD_TYPE": "types are u8 ... u64, s8 ... s64, x8 ... x64, string, ustring, symbol, bWIDTH@OFFSET/SIZE",
    "BAD_STRING": "strings and arrays are in memory: write +0(%si):string where %si points at it",
    "BAD_SYMSTRING": "symstr takes a value that is an address: %ip:symstr",
    "BAD_BITFIELD": "a bit-field is bWIDTH@OFFSET/SIZE with WIDTH + OFFSET up to SIZE, which is 8, 16, 32 or 64",
    "ARG_NAME_TOO_LONG": "an argument's name has 32 characters at most",
    "NO_ARG_NAME": "a name stands before the equals sign; leave that out for a default name",
    "BAD_ARG_NAME": "names have letters, digits and underscores, no digit first",
    "USED_ARG_NAME": "choose another name: it is used twice, or the kernel's own (common_*, __probe_*)",
    "ARG_TOO_LONG": "an argument has 63 characters at most behind its name",
    "NO_ARG_BODY": "something to fetch stands behind the equals sign",
    "BAD_INSN_BNDRY": "the offset lies inside an instruction: take one that a disassembly shows",
    "FAIL_REG_PROBE": "the kernel keeps probes out of this place: not code, blacklisted, or notrace",
    "DIFF_PROBE_TYPE": "the probes of one event are all p or all r: choose another name",
    "DIFF_ARG_TYPE": "the probes of one event have the same arguments, names and types: choose another name",
    "SAME_PROBE": "this probe is there already",
    "NOSUP_BTFARG": "a parameter's name works at the entry and the return of a kernel function only",
    "NO_BTFARG": "the function has no such parameter: `kprobes info FUNC` shows its prototype",
    "NO_BTF_ENTRY": "the kernel has no prototype of this function: use registers or $argN",
    "NOFENTRY_ARGS": "arguments can be had where the place is a function without an offset",
    "DOUBLE_ARGS": "write $arg* once",
    "ARGS_2LONG": "the names of the parameters are too long together: name the few that you need",
    "NO_PTR_STRCT": "-> follows a pointer to a structure only",
    "NOSUP_DAT_ARG": "write -> behind a parameter, . behind its members",
    "BAD_HYPHEN": "a member of what a pointer points at is POINTER->MEMBER",
    "NO_BTF_FIELD": "the structure has no such member",
    "BAD_TYPE4STR": "a string needs a char pointer or a char array",
    "NEED_STRING_TYPE": "leave the type out: it is a string, and never an array",
    "TOO_MANY_ARGS": "an event has 128 arguments at most",
    "EVENT_TOO_BIG": "all arguments together have 3072 bytes at most",
    "TYPECAST_NOT_EVENT": "type casts are for event probes",
}
# What a kernel that is newer would have taken.
_NEWER = {
    "BAD_FETCH_ARG": "btf",
    "BAD_EVENT_NAME": "dotted",
    "BAD_GROUP_NAME": "hyphen",
    "NO_EVENT_NAME": "group_alone",
}
_NEW_TYPES = {"symstr": "symstr", "char": "char", "%pd": "dentry", "%pD": "dentry"}


def hint_for(refused: Refused, words: Sequence[str], dialect: Dialect) -> str:
    """Return a hint on *refused*, empty where there is none."""
    if not refused.code:
        return _unsaid(refused, words)
    if refused.code == "NOFENTRY_ARGS" and "/" in words[1]:
        return f"in a program the arguments are in registers: {_ARGUMENTS[dialect.machine.name]}"
    newer = _newer(refused, words, dialect)
    return newer or _by_machine(refused.code, dialect.machine) or HINTS.get(refused.code, "")


def _by_machine(code: str, machine: Machine) -> str:
    """Return the hint where it differs from that for x86-64."""
    if code == "BAD_REG_NAME" and machine.name in _REGISTERS:
        return f"registers of {machine.name} are {_REGISTERS[machine.name]}"
    if code == "BAD_MEM_ADDR" and machine.bits != 64:
        return f"an address is a number of {machine.bits} bits: @{machine.kernel_half | 0x1000000:#x}"
    return ""


_REGISTERS = {
    "i386": "ax bx cx dx si di bp sp ip flags cs ss ds es fs gs orig_ax, without the e of eax",
    "aarch64": "x0 ... x30 lr sp pc pstate",
}


# Where programs pass their first arguments.
_ARGUMENTS = {
    "x86_64": "%di %si %dx %cx %r8 %r9",
    "i386": "none, they are on the stack: $stack1 $stack2 ...",
    "aarch64": "%x0 ... %x7",
}


def _newer(refused: Refused, words: Sequence[str], dialect: Dialect) -> str:
    word = words[refused.index] if refused.index < len(words) else ""
    name = _NEWER.get(refused.code, "")
    shown = {
        "BAD_FETCH_ARG": word.rpartition("=")[2][:1].isalpha(),
        "BAD_EVENT_NAME": "." in word,
        "BAD_GROUP_NAME": "-" in word,
    }
    if refused.code == "BAD_TYPE":
        name = _NEW_TYPES.get(word.rpartition(":")[2].partition("[")[0], "")
    elif not shown.get(refused.code, True):
        name = ""
    for feature in FEATURES:
        if feature.name == name and KERNELS.index(feature.since) > KERNELS.index(dialect.name):
            return f"a later kernel would take it ({feature.since} does): {feature.text}"
    return ""


def _unsaid(refused: Refused, words: Sequence[str]) -> str:
    """Return what is wrong where the kernel gives an errno alone."""
    head = words[0] if words else ""
    if refused.number == ENOENT:
        return "there is no such event to delete: names, place and arguments are compared as they are listed"
    if refused.number == E2BIG:
        return HINTS["TOO_MANY_ARGS"]
    if refused.number != EINVAL:
        return ""
    if head[:1] in {"-", "!"}:
        return "a deletion is -:EVENT or -:GROUP/EVENT, at the beginning of the line"
    if head[:1] not in {"p", "r"}:
        return "a line begins with p (probe), r (return probe) or - (delete)"
    if len(words) < 2:
        return "a place stands behind the event's name: p:NAME FUNCTION"
    if any("$comm" in word.lower() or '\\"' in word for word in words):
        return "$comm and immediate strings have the type string, and are no arrays"
    if "/" in words[1]:
        path, colon, offset = words[1].rpartition(":")
        if not colon or not offset[:1].isdigit():
            hint = "a uprobe's place is PATH:0xOFFSET"
            return f"{hint}: `kprobes info {words[1]}` tells the file offset" if colon and path and offset else hint
        return "uprobes are lines of uprobe_events; another reference counter of one place is refused, too"
    return "a line has 4094 bytes at most and no NUL; a uprobe is PATH:OFFSET with a slash in its path"
