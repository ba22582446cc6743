"""A definition, `p:opened do_sys_openat2 dfd=%di filename=+0(%si):string`, as a part of a module."""

from __future__ import annotations

from kprobes.errors import UsageError
from kprobes.export.cnaming import Names, c_string, comment, comment_text, wrapped
from kprobes.export.fetching import ARGUMENT_REGISTERS, MOST_STACK, TEXT_SIZE, Fetcher, argument_in_c
from kprobes.export.part import Part, PlaceInC
from kprobes.model.ctype import format_ctype
from kprobes.model.definition import AddressPlace, KernelPlace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.export.fetching import Fetched
    from kprobes.model.ctype import Function
    from kprobes.model.definition import Definition

_OWN_WORDS = frozenset({"p", "ri", "regs", "site", "fault", "call", "current", "error", "at"})


def definition_part(definition: Definition, names: Names, prototype: Function | None, *, stack: bool = False) -> Part:
    """Return *definition* in C; *names* gives out the module's identifiers.

    *prototype* is that of the probed function, where it is known: the registers' comments are made of it. With *stack*
    each hit shows the kernel's stack.

    Raises:
        UsageError: it is a uprobe, or asks for what a module doesn't have.
    """
    name = names.new(definition.event)
    at_entry = isinstance(definition.place, KernelPlace) and not definition.place.offset
    known = prototype if at_entry else None
    comments = {} if definition.is_return else _comments(known)
    fetcher = Fetcher(Names(_OWN_WORDS), name, comments, is_return=definition.is_return)
    fetched = [fetcher.fetch(argument) for argument in definition.arguments]
    if sum(one.size for one in fetched) > MOST_STACK:
        raise UsageError(
            f"{definition.event}: its arguments take more than {MOST_STACK} bytes of the kernel's stack",
            hint=f"a string takes {TEXT_SIZE}: leave some out, or write a second definition for them",
        )
    helpers = list(dict.fromkeys(fetcher.helpers))
    if fetcher.symbols:
        helpers.append("address_of")
    functions = _comment(definition, known)
    functions += _entry(name, fetcher.entry_arguments)
    functions += _handler(name, definition, fetcher, fetched, stack=stack)
    is_return = definition.is_return
    return Part(
        name=name,
        title=definition.text,
        places=(_place(definition),),
        functions=functions,
        is_return=is_return,
        pre="" if is_return else f"{name}_pre",
        handler=f"{name}_return" if is_return else "",
        entry=f"{name}_entry" if fetcher.entry_arguments else "",
        data_size=f"sizeof(struct {name}_call)" if fetcher.entry_arguments else "",
        maxactive=definition.maxactive,
        declarations=_declarations(name, fetcher),
        setup=tuple(line for symbol, variable in fetcher.symbols.items() for line in _lookup(symbol, variable)),
        includes=("linux/sched.h", "linux/string.h", *(("linux/printk.h",) if stack else ())),
        helpers=tuple(helpers),
    )


def _place(definition: Definition) -> PlaceInC:
    place = definition.place
    if isinstance(place, KernelPlace):
        return PlaceInC(place.symbol, place.offset)
    if isinstance(place, AddressPlace):
        return PlaceInC(address=place.address)
    raise UsageError(
        f"{definition.event}: a module probes the kernel, this is a place in a file",
        hint="uprobes are for `kprobes run`, or the kernel's uprobe_events",
    )


def _comments(prototype: Function | None) -> dict[str, str]:
    """Return what the prototype calls the registers."""
    if prototype is None:
        return {}
    pairs = zip(ARGUMENT_REGISTERS, prototype.parameters, strict=False)
    return {register: f"{_declared(format_ctype(one.type), one.name)}" for register, one in pairs}


def _declared(ctype: str, name: str) -> str:
    return comment_text(f"{ctype}{name}" if ctype.endswith("*") else f"{ctype} {name}".strip())


def _comment(definition: Definition, prototype: Function | None) -> str:
    lines = [definition.text]
    if prototype is not None:
        inside = ", ".join(_declared(format_ctype(one.type), one.name) for one in prototype.parameters) or "void"
        lines.append(f"{_declared(format_ctype(prototype.returns), prototype.name)}({inside})")
    return comment(lines)


def _declarations(name: str, fetcher: Fetcher) -> str:
    text = "".join(
        f"static unsigned long {variable}; /* of {comment_text(symbol)} */\n"
        for symbol, variable in fetcher.symbols.items()
    )
    if fetcher.entry_arguments:
        fields = "".join(f"\tunsigned long arg{index + 1};\n" for index in fetcher.entry_arguments)
        text += f"/* What a call keeps from its entry to its return. */\nstruct {name}_call {{\n{fields}}};\n"
    return text


def _lookup(symbol: str, variable: str) -> list[str]:
    return [
        f"{variable} = address_of({c_string(symbol)});",
        f"if (!{variable}) {{",
        f'\tpr_err("no symbol %s\\n", {c_string(symbol)});',
        "\treturn -ENOENT;",
        "}",
    ]


def _entry(name: str, arguments: list[int]) -> str:
    if not arguments:
        return ""
    keep = "".join(f"\tcall->arg{index + 1} = {argument_in_c(index)};\n" for index in arguments)
    return (
        f"static int {name}_entry(struct kretprobe_instance *ri, struct pt_regs *regs)\n{{\n"
        f"\tstruct {name}_call *call = (void *)ri->data;\n\n{keep}\treturn 0;\n}}\n"
        f"NOKPROBE_SYMBOL({name}_entry);\n\n"
    )


def _handler(name: str, definition: Definition, fetcher: Fetcher, fetched: list[Fetched], *, stack: bool) -> str:
    is_return = definition.is_return
    if is_return:
        head = f"static int {name}_return(struct kretprobe_instance *ri, struct pt_regs *regs)\n{{\n"
        site = "struct return_site *site = site_of(ri);"
        shown, value = "(%pS <- %ps)", "(void *)regs->ip, site->probe.kp.addr"
    else:
        head = f"static int {name}_pre(struct kprobe *p, struct pt_regs *regs)\n{{\n"
        site = "struct site *site = container_of(p, struct site, probe);"
        shown, value = "(%pS)", "p->addr"
    can_fault = any("fault" in line for one in fetched for line in (*one.statements, *one.declarations))
    locals_ = [site]
    if fetcher.entry_arguments:
        locals_.append(f"struct {name}_call *call = (void *)ri->data;")
    if can_fault:
        locals_.append("bool fault = false;")
    locals_ += [line for one in fetched for line in one.declarations]
    body = ["if (!site)", "\treturn 0;"] if is_return else []
    body += ["atomic64_inc(&site->hits);", *(line for one in fetched for line in one.statements)]
    form = " ".join([f"{name}: {shown}", *(one.format for one in fetched)])
    values = [value, *(one for piece in fetched for one in piece.values)]
    body += [f"pr_info({c_string(form + chr(10))},", *(f"\t{line}" for line in wrapped(values))]
    body += ["dump_stack();"] if stack else []
    body += ["if (fault)", "\tatomic64_inc(&site->faults);"] if can_fault else []
    text = "".join(f"\t{line}\n" for line in locals_) + "\n" + "".join(f"\t{line}\n" for line in [*body, "return 0;"])
    foot = f"NOKPROBE_SYMBOL({name}_return);\n" if is_return else ""
    return f"{head}{text}}}\n{foot}"
