"""A kernel module from its parts: one C file, a Makefile, a README.

All probes stand in two tables, `sites` and `returns`, which init registers in order, exit takes away, and the report at
the end walks through.
"""

from __future__ import annotations

from kprobes.export.cnaming import c_string, comment
from kprobes.export.part import ModuleSource
from kprobes.export.prelude import HELPERS, with_needs
from kprobes.export.readme import readme_of
from kprobes.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.export.part import Part, PlaceInC, Shared

INCLUDES = ("linux/atomic.h", "linux/kprobes.h", "linux/module.h", "linux/ptrace.h")

_SITE = """\
/* A probe with its counts. */
struct site {
	const char *name;
	struct kprobe probe;
	atomic64_t hits;
	atomic64_t faults;
};
"""
_RETURN_SITE = """\
/* A return probe with its counts. */
struct return_site {
	const char *name;
	struct kretprobe probe;
	atomic64_t hits;
	atomic64_t faults;
};

/* The probe of a call; NULL while another CPU takes it away. */
static inline struct return_site *site_of(struct kretprobe_instance *ri)
{
	struct kretprobe *found = get_kretprobe(ri);

	return found ? container_of(found, struct return_site, probe) : NULL;
}
"""
_ABOUT = (
    "What the probes see goes to the kernel's log; how often they were hit and missed is told when",
    "the module is removed.",
    "",
    f"Written by kprobes {VERSION} (`kprobes export module`).",
)
_MAKEFILE = """\
# SPDX-License-Identifier: GPL-2.0 OR MIT
obj-m := {name}.o

KDIR ?= /lib/modules/$(shell uname -r)/build

all:
	$(MAKE) -C $(KDIR) M=$(CURDIR) modules

clean:
	$(MAKE) -C $(KDIR) M=$(CURDIR) clean

.PHONY: all clean
"""


def module_source(
    name: str, parts: Sequence[Part], shared: Sequence[Shared] = (), includes: Sequence[str] = ()
) -> ModuleSource:
    """Return the module *name* made of *parts*, with what they have in common in *shared*; *includes* are headers
    besides."""
    # Linux 6.1 can't disarm a probe at a function's entry that got a post handler beside it while it was armed.
    parts = sorted(parts, key=lambda part: not part.post)
    sections = [
        _head(name, parts),
        _includes(parts, shared, includes),
        *(HELPERS[one].text for one in _helpers(parts, shared)),
        _SITE if any(not part.is_return for part in parts) else "",
        _RETURN_SITE if any(part.is_return for part in parts) else "",
        *(one.declarations for one in shared),
        *(text for part in parts for text in _part(part)),
        _table([part for part in parts if not part.is_return], "site", "sites", _site),
        _table([part for part in parts if part.is_return], "return_site", "returns", _return_site),
        _init(name, parts, shared),
        _exit(name, parts, shared),
        _foot(name),
    ]
    code = "\n".join(section for section in sections if section)
    return ModuleSource(name, code, _MAKEFILE.format(name=name), readme_of(name, parts, shared))


def _head(name: str, parts: Sequence[Part]) -> str:
    lines = [f"{name} - probes of the kernel:", "", *(f"  {part.title}" for part in parts), "", *_ABOUT]
    return f'// SPDX-License-Identifier: GPL-2.0 OR MIT\n{comment(lines)}#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt\n'


def _includes(parts: Sequence[Part], shared: Sequence[Shared], others: Sequence[str]) -> str:
    wanted = {*INCLUDES, *others}
    for found in ([one.includes for one in parts], [one.includes for one in shared]):
        wanted.update(*found)
    for helper in _helpers(parts, shared):
        wanted.update(HELPERS[helper].includes)
    ordered = sorted(wanted, key=lambda header: (header.startswith("asm/"), header))
    return "".join(f"#include <{header}>\n" for header in ordered)


def _helpers(parts: Sequence[Part], shared: Sequence[Shared]) -> list[str]:
    wanted = [*(one.helpers for one in parts), *(one.helpers for one in shared)]
    return with_needs(helper for found in wanted for helper in found)


def _part(part: Part) -> list[str]:
    """Return the sections of one part: its module parameters, its declarations, its functions."""
    parameters = []
    if _has_symbol(part):
        parameters += [
            f"static char *{part.name}_symbol = {c_string(part.places[0].symbol)};",
            f"module_param({part.name}_symbol, charp, 0444);",
            f'MODULE_PARM_DESC({part.name}_symbol, "the function that {part.name} probes");',
        ]
    if part.is_return:
        parameters += [
            f"static int {part.name}_maxactive{f' = {part.maxactive}' if part.maxactive else ''};",
            f"module_param({part.name}_maxactive, int, 0444);",
            f'MODULE_PARM_DESC({part.name}_maxactive, "calls followed at a time; 0: the kernel chooses");',
        ]
    text = "\n".join(parameters) + "\n" if parameters else ""
    return [text, part.declarations, part.functions]


def _has_symbol(part: Part) -> bool:
    return len(part.places) == 1 and bool(part.places[0].symbol)


def _table(parts: Sequence[Part], kind: str, name: str, write: object) -> str:
    if not parts:
        return ""
    assert callable(write)
    entries = [write(part, place) for part in parts for place in part.places]
    return f"static struct {kind} {name}[] = {{\n" + "".join(entries) + "};\n"


def _site(part: Part, place: PlaceInC) -> str:
    lines = ["\t{", f"\t\t.name = {c_string(part.name)},", "\t\t.probe = {"]
    lines += [f"\t\t\t{line}" for line in _where(place)]
    lines += [f"\t\t\t.pre_handler = {part.pre},"] if part.pre else []
    lines += [f"\t\t\t.post_handler = {part.post},"] if part.post else []
    return "\n".join([*lines, "\t\t},", "\t},"]) + "\n"


def _return_site(part: Part, place: PlaceInC) -> str:
    lines = ["\t{", f"\t\t.name = {c_string(part.name)},", "\t\t.probe = {"]
    lines += [f"\t\t\t.kp{line}" for line in _where(place)]
    lines += [f"\t\t\t.handler = {part.handler},"] if part.handler else []
    lines += [f"\t\t\t.entry_handler = {part.entry},"] if part.entry else []
    lines += [f"\t\t\t.data_size = {part.data_size},"] if part.data_size else []
    return "\n".join([*lines, "\t\t},", "\t},"]) + "\n"


def _where(place: PlaceInC) -> list[str]:
    if not place.symbol:
        return [f".addr = (kprobe_opcode_t *)0x{place.address:x},"]
    return [
        f".symbol_name = {c_string(place.symbol)},",
        *([f".offset = 0x{place.offset:x},"] if place.offset else []),
    ]


def _assignments(parts: Sequence[Part]) -> list[str]:
    """Return the statements that put module parameters into the tables."""
    lines = []
    for table, field, chosen in (("sites", "probe", False), ("returns", "probe.kp", True)):
        at = 0
        for part in (one for one in parts if one.is_return == chosen):
            if _has_symbol(part):
                lines.append(f"{table}[{at}].{field}.symbol_name = {part.name}_symbol;")
            if part.is_return:
                lines += [
                    f"{table}[{at + number}].probe.maxactive = {part.name}_maxactive;"
                    for number in range(len(part.places))
                ]
            at += len(part.places)
    return lines


_REGISTER = """\
	for (at = 0; at < ARRAY_SIZE({table}); at++) {{
		error = {call}(&{table}[at].probe);
		if (error) {{
			pr_err("%s can't be registered: %d\\n", {table}[at].name, error);
			goto {label};
		}}
	}}
"""
_UNREGISTER = """\
	for (at = 0; at < ARRAY_SIZE({table}); at++)
		{call}(&{table}[at].probe);
"""


def _init(name: str, parts: Sequence[Part], shared: Sequence[Shared]) -> str:
    has_sites = any(not part.is_return for part in parts)
    has_returns = any(part.is_return for part in parts)
    body = [f"\t{line}\n" for line in _assignments(parts)]
    for part in parts:
        body += [f"\t{line}\n" for line in part.setup]
    for one in shared:
        body += [f"\t{line}\n" for line in one.setup]
    registering = ""
    if has_sites:
        registering += _REGISTER.format(table="sites", call="register_kprobe", label="undo_sites")
    if has_returns:
        registering += _REGISTER.format(table="returns", call="register_kretprobe", label="undo_returns")
    cleanup = "".join(f"\t{line}\n" for one in shared for line in one.cleanup)
    return _init_text(name, body, registering, (has_sites, has_returns), cleanup)


def _init_text(name: str, body: list[str], registering: str, tables: tuple[bool, bool], cleanup: str) -> str:
    has_sites, has_returns = tables
    lines = [f"static int __init {name}_init(void)\n{{\n\tunsigned int at;\n\tint error;\n\n", *body]
    if body:
        lines.append("\n")
    lines.append(registering)
    lines.append('\n\tpr_info("probing\\n");\n\treturn 0;\n\n')
    if has_returns:
        lines.append("undo_returns:\n\twhile (at--)\n\t\tunregister_kretprobe(&returns[at].probe);\n")
        if has_sites:
            lines.append("\tat = ARRAY_SIZE(sites);\n")
    if has_sites:
        lines.append("undo_sites:\n\twhile (at--)\n\t\tunregister_kprobe(&sites[at].probe);\n")
    if "goto undo;" in "".join(body):
        lines.append("undo:\n")
    lines.append(cleanup)
    lines.append("\treturn error;\n}\n")
    return "".join(lines)


def _exit(name: str, parts: Sequence[Part], shared: Sequence[Shared]) -> str:
    lines = [f"static void __exit {name}_exit(void)\n{{\n\tunsigned int at;\n\n"]
    has_sites = any(not part.is_return for part in parts)
    has_returns = any(part.is_return for part in parts)
    if has_sites:
        lines.append(_UNREGISTER.format(table="sites", call="unregister_kprobe"))
    if has_returns:
        lines.append(_UNREGISTER.format(table="returns", call="unregister_kretprobe"))
    lines.append("\n")
    if has_sites:
        lines.append(_counts("sites", "sites[at].probe.addr", "sites[at].probe.nmissed"))
    if has_returns:
        missed = "returns[at].probe.nmissed + returns[at].probe.kp.nmissed"
        lines.append(_counts("returns", "returns[at].probe.kp.addr", missed))
    lines += [f"\t{line}\n" for one in shared for line in one.report]
    lines += [f"\t{line}\n" for one in shared for line in one.cleanup]
    lines.append("}\n")
    return "".join(lines)


def _counts(table: str, address: str, missed: str) -> str:
    return (
        f"\tfor (at = 0; at < ARRAY_SIZE({table}); at++)\n"
        f'\t\tpr_info("%s at %pS: hits %lld, missed %lu, faults %lld\\n",\n'
        f"\t\t\t{table}[at].name, {address},\n"
        f"\t\t\tatomic64_read(&{table}[at].hits),\n"
        f"\t\t\t(unsigned long)({missed}),\n"
        f"\t\t\tatomic64_read(&{table}[at].faults));\n"
    )


def _foot(name: str) -> str:
    return (
        f"module_init({name}_init);\nmodule_exit({name}_exit);\n\n"
        f'MODULE_DESCRIPTION("Probes of the kernel, written by kprobes");\n'
        'MODULE_LICENSE("Dual MIT/GPL");\n'
    )
