"""Min, Max and Avg without a key, and arrays, in C: words that are changed without a lock."""

from __future__ import annotations

from kprobes.export.cnaming import c_string
from kprobes.export.part import Shared
from kprobes.model.aggregates import Avg, Min
from kprobes.model.mapspec import fields_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.model.aggregates import Max
    from kprobes.model.containers import Array
    from kprobes.model.layout import Field


def extreme(name: str, spec: Min | Max) -> Shared:
    """Return the least or the greatest value."""
    start, sign = ("S64_MAX", "<") if isinstance(spec, Min) else ("S64_MIN", ">")
    shown = c_string(spec.name)
    text = f"""\
/* The {"least" if isinstance(spec, Min) else "greatest"} value, once there is one. */
static atomic64_t {name} = ATOMIC64_INIT({start});
static bool {name}_known;

static void {name}_add(s64 value)
{{
	s64 best = atomic64_read(&{name});

	while (value {sign} best && !atomic64_try_cmpxchg(&{name}, &best, value))
		;
	WRITE_ONCE({name}_known, true);
}}
"""
    report = (
        f"if ({name}_known)",
        f'\tpr_info("%s: %lld\\n", {shown}, atomic64_read(&{name}));',
        "else",
        f'\tpr_info("%s: no value\\n", {shown});',
    )
    return Shared(name, text, report=report, includes=("linux/limits.h",))


def average(name: str, spec: Avg) -> Shared:
    """Return the number and the sum of values."""
    text = f"""\
static atomic64_t {name}_total;
static atomic64_t {name}_count;

static void {name}_add(s64 value)
{{
	atomic64_add(value, &{name}_total);
	atomic64_inc(&{name}_count);
}}
"""
    words = f"atomic64_read(&{name}_total), atomic64_read(&{name}_count)"
    return Shared(
        name, text, report=(f'report_average({c_string(spec.name)}, "", {words});',), helpers=("report_average",)
    )


class ArrayInC:
    """An array: *name* is its identifier; *used* gathers what handlers do with it. It has no key."""

    key: tuple[Field, ...] = ()
    helpers: tuple[str, ...] = ()

    def __init__(self, spec: Array, name: str) -> None:
        self.spec = spec
        self.name = name
        self.used: set[str] = set()
        self.value_signed = fields_of(spec.value, "value")[0][0].kind == "int"

    def shared(self) -> Shared:
        """Return the array as a part of the module."""
        name, length = self.name, self.spec.length
        text = f"static atomic64_t {name}[{length}];\n" + "".join(self._operation(one) for one in sorted(self.used))
        text += f"""\

static void {name}_report(void)
{{
	unsigned int index;

	for (index = 0; index < {length}; index++)
		if (atomic64_read(&{name}[index]))
			pr_info("%s[%u]: {"%lld" if self.value_signed else "%llu"}\\n", {c_string(self.spec.name)}, index,
				{"" if self.value_signed else "(u64)"}atomic64_read(&{name}[index]));
}}
"""
        return Shared(name, text, report=(f"{name}_report();",))

    def _operation(self, what: str) -> str:
        name, length = self.name, self.spec.length
        if what == "get":
            kind = "s64" if self.value_signed else "u64"
            return f"""\

static {kind} {name}_get(u64 index, bool *fault)
{{
	if (index < {length})
		return atomic64_read(&{name}[index]);
	*fault = true;
	return 0;
}}
"""
        call = "atomic64_set(&{0}[index], value)" if what == "set" else "atomic64_add(value, &{0}[index])"
        return f"""\

static bool {name}_{what}(u64 index, s64 value)
{{
	if (index >= {length})
		return false;
	{call.format(name)};
	return true;
}}
"""
