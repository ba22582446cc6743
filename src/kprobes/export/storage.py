"""The maps of a script in C: counters, buckets, and tables by key with a fixed number of entries.

A handler can't allocate: the entries of a table are there from the start, and one more than there are is a fault, as
in the language. A table is guarded by a raw spinlock; a handler can't be hit again on its own CPU while it holds it,
since the kernel runs no probe within a probe.
"""

from __future__ import annotations

from kprobes.export import folding
from kprobes.export.cnaming import c_string
from kprobes.export.part import Shared
from kprobes.model.aggregates import Avg, Max, Min, Sum
from kprobes.model.mapspec import Count, HashMap, Histogram, fields_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.model.layout import Field
    from kprobes.model.mapspec import MapSpec, TypeSpec

_FORMATS = {"int": "%lld", "uint": "%llu", "hex": "0x%llx", "symbol": "%pS", "bool": "%lld", "str": "%s"}
_MOST_ENTRIES = 1 << 16


class MapRefusedError(ValueError):
    """A map of a sort or a shape that a module can't have; the text says which."""


def one_integer(name: str, value: TypeSpec) -> Field:
    """Return the one field of a map's values.

    Raises:
        MapRefusedError: they are more than an integer.
    """
    fields = fields_of(value, "value")[0]
    if len(fields) != 1 or fields[0].kind not in ("int", "uint", "bool"):
        raise MapRefusedError(f"{name}, whose values are more than an integer,")
    if fields[0].size != 8 and fields[0].kind != "bool":
        raise MapRefusedError(f"{name}, whose values have {fields[0].size} bytes,")
    return fields[0]


class MapInC:
    """One map: *name* is its identifier, *key* the fields of its key; *used* gathers what handlers do with it."""

    def __init__(self, spec: MapSpec, name: str) -> None:
        if not isinstance(spec, Count | Sum | Min | Max | Avg | Histogram | HashMap):
            raise MapRefusedError(f"{spec.name}, a {type(spec).__name__}")
        by = spec.key if isinstance(spec, HashMap) else spec.by
        self.spec = spec
        self.name = name
        self.key: tuple[Field, ...] = fields_of(by, "key")[0]
        self.used: set[str] = set()
        self.value_signed = True
        if isinstance(spec, HashMap):
            self._check(spec)
        odd = [one.kind for one in self.key if one.kind not in _FORMATS]
        if odd:
            raise MapRefusedError(f"{spec.name} by a {odd[0].replace('_', ' ')}")

    def _check(self, spec: HashMap) -> None:
        self.value_signed = one_integer(spec.name, spec.value).kind == "int"

    @property
    def helpers(self) -> tuple[str, ...]:
        """Return the helpers that adding to it and reporting it take."""
        if isinstance(self.spec, Avg):
            return ("report_average",)
        if not isinstance(self.spec, Histogram):
            return ()
        return ("bucket_of", "report_buckets") if self.spec.linear is None else ()

    @property
    def _buckets(self) -> str:
        assert isinstance(self.spec, Histogram)
        return "BUCKETS" if self.spec.linear is None else str(self.spec.buckets.total)

    def bucket(self, value: str, *, signed: bool) -> str:
        """Return the expression of the bucket that *value* falls in."""
        assert isinstance(self.spec, Histogram)
        if self.spec.linear is None:
            return f"bucket_of({value}, {'true' if signed else 'false'})"
        return f"{self.name}_bucket({value}, {'true' if signed else 'false'})"

    def shared(self) -> Shared:
        """Return the map as a part of the module."""
        return self._keyed() if self.key else self._plain()

    # Without a key.

    def _plain(self) -> Shared:
        name, shown = self.name, c_string(self.spec.name)
        if isinstance(self.spec, Histogram):
            report = self._report_buckets(shown, '""', name)
            text = f"static atomic64_t {name}[{self._buckets}];\n" + self._linear()
            return Shared(name, text, report=report, helpers=self.helpers)
        if isinstance(self.spec, Min | Max):
            return folding.extreme(name, self.spec)
        if isinstance(self.spec, Avg):
            return folding.average(name, self.spec)
        line = f'pr_info("%s: %lld\\n", {shown}, atomic64_read(&{name}));'
        return Shared(name, f"static atomic64_t {name};\n", report=(line,))

    def _report_buckets(self, shown: str, key: str, buckets: str) -> tuple[str, ...]:
        assert isinstance(self.spec, Histogram)
        if self.spec.linear is None:
            return (f"report_buckets({shown}, {key}, {buckets});",)
        return (f"{self.name}_report_buckets({key}, {buckets});",)

    def _linear(self) -> str:
        """Return the functions of a histogram with buckets of one width."""
        if not isinstance(self.spec, Histogram) or self.spec.linear is None:
            return ""
        found, name = self.spec.buckets, self.name
        last, end = found.total - 1, found.low + found.count * found.step
        return f"""\

/* The bucket of a value: the first and the last one are for what lies outside. */
static unsigned int {name}_bucket(u64 value, bool is_signed)
{{
	if (!is_signed && value >> 63)
		return {last};
	if ((s64)value < {found.low})
		return 0;
	if ((s64)value >= {end})
		return {last};
	return ((s64)value - {found.low}) / {found.step} + 1;
}}

static void {name}_report_buckets(const char *key, atomic64_t *buckets)
{{
	unsigned int at;
	s64 low = {found.low};

	for (at = 0; at <= {last}; at++) {{
		if (at > 1)
			low += {found.step};
		if (!atomic64_read(&buckets[at]))
			continue;
		if (!at)
			pr_info("%s%s: below %lld: %lld\\n", {c_string(self.spec.name)}, key, low,
				atomic64_read(&buckets[at]));
		else
			pr_info("%s%s: from %lld: %lld\\n", {c_string(self.spec.name)}, key, low,
				atomic64_read(&buckets[at]));
	}}
}}
"""

    # By key.

    def _keyed(self) -> Shared:
        name, spec = self.name, self.spec
        entries = min(getattr(spec, "entries", 1024), _MOST_ENTRIES)
        bits = max(4, min(12, (entries - 1).bit_length() - 1))
        age = "\tstruct list_head age;\n" if self._ages() else ""
        ages = f"static LIST_HEAD({name}_ages); /* the last one was used longest ago */\n" if self._ages() else ""
        freed = f"static HLIST_HEAD({name}_free);\n" if self._deletes() else ""
        text = f"""\
/* {spec.name}: {entries} keys at most. */
struct {name}_key {{
{"".join(f"	{_member(one)};{chr(10)}" for one in self.key)}}};

struct {name}_entry {{
	struct hlist_node node;
	struct {name}_key key;
	{self._value()};
{age}}};

static DEFINE_HASHTABLE({name}_table, {bits});
static DEFINE_RAW_SPINLOCK({name}_lock);
static struct {name}_entry *{name}_entries;
{freed}{ages}static unsigned int {name}_count;

static struct {name}_entry *{name}_find(const struct {name}_key *key)
{{
	struct {name}_entry *entry;

	hash_for_each_possible({name}_table, entry, node, jhash(key, sizeof(*key), 0))
		if (!memcmp(&entry->key, key, sizeof(*key)))
			return entry;
	return NULL;
}}
"""
        if self.used & {"add", "set", "bump"}:
            text += self._make(entries)
        text += "".join(self._operation(one) for one in sorted(self.used))
        text += self._linear() + self._report()
        return Shared(
            name,
            text,
            report=(f"{name}_report();",),
            setup=(
                f"{name}_entries = kvcalloc({entries}, sizeof(*{name}_entries), GFP_KERNEL);",
                f"if (!{name}_entries) {{",
                "\terror = -ENOMEM;",
                "\tgoto undo;",
                "}",
            ),
            cleanup=(f"kvfree({name}_entries);",),
            includes=(
                "linux/hashtable.h", "linux/jhash.h", "linux/mm.h", "linux/slab.h", "linux/spinlock.h",
                "linux/string.h",
            ),
            helpers=self.helpers,
        )  # fmt: skip

    def _value(self) -> str:
        if isinstance(self.spec, Histogram):
            return f"atomic64_t buckets[{self._buckets}]"
        if isinstance(self.spec, Min | Max):
            return "s64 value;\n\tbool known"
        if isinstance(self.spec, Avg):
            return "s64 value;\n\ts64 count"
        return "s64 value" if self.value_signed else "u64 value"

    def _deletes(self) -> bool:
        return "pop" in self.used

    def _ages(self) -> bool:
        return isinstance(self.spec, HashMap) and self.spec.lru and bool(self.used & {"set", "bump"})

    def _make(self, entries: int) -> str:
        name = self.name
        full = "\treturn NULL;\n"
        if self._ages():
            full = (
                f"\tentry = list_last_entry(&{name}_ages, struct {name}_entry, age);\n"
                "\tlist_del(&entry->age);\n\thash_del(&entry->node);\n"
            )
        again = f"""\
	if (!hlist_empty(&{name}_free)) {{
		entry = hlist_entry({name}_free.first, struct {name}_entry, node);
		hlist_del(&entry->node);
	}} else if ({name}_count < {entries}) {{
		entry = &{name}_entries[{name}_count++];
	}} else {{
{full.replace(chr(9), chr(9) * 2, 1).replace(chr(10) + chr(9), chr(10) + chr(9) * 2)}	}}
"""
        first = f"""\
	if ({name}_count < {entries}) {{
		entry = &{name}_entries[{name}_count++];
	}} else {{
{full.replace(chr(9), chr(9) * 2, 1).replace(chr(10) + chr(9), chr(10) + chr(9) * 2)}	}}
"""
        young = f"\tlist_add(&entry->age, &{name}_ages);\n" if self._ages() else ""
        return f"""\

/* The entry of a key, a new one where there is none; NULL where there is no room. */
static struct {name}_entry *{name}_make(const struct {name}_key *key)
{{
	struct {name}_entry *entry = {name}_find(key);

	if (entry)
		return entry;
{again if self._deletes() else first}	memset(entry, 0, sizeof(*entry));
	entry->key = *key;
	hash_add({name}_table, &entry->node, jhash(key, sizeof(*key), 0));
{young}	return entry;
}}
"""

    def _operation(self, what: str) -> str:
        name = self.name
        kind = "s64" if self.value_signed else "u64"
        extra = {"set": [f"{kind} value"], "bump": ["s64 amount"], "get": [f"{kind} otherwise"],
                 "pop": [f"{kind} otherwise"], "has": []}.get(what)  # fmt: skip
        if extra is None:
            extra = ["unsigned int bucket", "s64 amount"] if isinstance(self.spec, Histogram) else ["s64 amount"]
        makes = what in ("add", "set", "bump")
        returns = "bool" if makes or what == "has" else kind
        find = "make" if makes else "find"
        action = {
            "add": "entry->value += amount;",
            "bump": "entry->value += amount;",
            "set": "entry->value = value;",
            "get": "otherwise = entry->value;",
        }.get(what, "")
        if what == "add" and isinstance(self.spec, Histogram):
            action = "atomic64_add(amount, &entry->buckets[bucket]);"
        if what == "add":
            action = self._folded() or action
        body = f"\tif (entry)\n\t\t{action}\n" if action else ""
        if "\n" in action:
            body = f"\tif (entry) {{\n\t\t{action}\n\t}}\n"
        if what == "pop":
            body = (
                "\tif (entry) {\n\t\totherwise = entry->value;\n\t\thash_del(&entry->node);\n"
                f"\t\thlist_add_head(&entry->node, &{name}_free);\n\t}}\n"
            )
        result = "entry" if returns == "bool" else "otherwise"
        used = ""
        if self._ages():
            move = f"list_move(&entry->age, &{name}_ages)" if what != "pop" else "list_del(&entry->age)"
            used = f"\tif (entry)\n\t\t{move};\n"
        parameters = ", ".join([_parameter(one) for one in self.key] + extra)
        return f"""\

static {returns} {name}_{what}({parameters})
{{
	struct {name}_key wanted = {{}};
	struct {name}_entry *entry;
	unsigned long flags;

{"".join(f"	{_assignment(one)};{chr(10)}" for one in self.key)}\
	raw_spin_lock_irqsave(&{name}_lock, flags);
	entry = {name}_{find}(&wanted);
{used}{body}\
	raw_spin_unlock_irqrestore(&{name}_lock, flags);
	return {result};
}}
"""

    def _folded(self) -> str:
        """Return the statements that take *amount* into an entry, where it isn't added."""
        if isinstance(self.spec, Avg):
            return "entry->value += amount;\n\t\tentry->count++;"
        if isinstance(self.spec, Min | Max):
            sign = "<" if isinstance(self.spec, Min) else ">"
            take = "\t\t\tentry->value = amount;\n\t\tentry->known = true;"
            return f"if (!entry->known || amount {sign} entry->value)\n{take}"
        return ""

    def _report(self) -> str:
        name, shown = self.name, c_string(self.spec.name)
        form = ", ".join(_FORMATS[one.kind] for one in self.key)
        values = ", ".join(
            f"(void *)entry->key.{one.name}" if one.kind == "symbol" else f"entry->key.{one.name}" for one in self.key
        )
        if isinstance(self.spec, Histogram):
            declared = "\tchar key[128];\n"
            lines = f'\t\tscnprintf(key, sizeof(key), "[{form}]", {values});\n'
            (call,) = self._report_buckets(shown, "key", "entry->buckets")
            lines += f"\t\t{call}\n"
        elif isinstance(self.spec, Avg):
            declared = "\tchar key[128];\n"
            lines = f'\t\tscnprintf(key, sizeof(key), "[{form}]", {values});\n'
            lines += f"\t\treport_average({shown}, key, entry->value, entry->count);\n"
        else:
            declared = ""
            number = "%lld" if self.value_signed else "%llu"
            lines = f'\t\tpr_info("%s[{form}]: {number}\\n", {shown}, {values}, entry->value);\n'
        return f"""\

static void {name}_report(void)
{{
	struct {name}_entry *entry;
	unsigned int bucket;
{declared}
	hash_for_each({name}_table, bucket, entry, node) {{
{lines}\
	}}
}}
"""


def _member(field: Field) -> str:
    if field.kind == "str":
        return f"char {field.name}[{-(-field.size // 8) * 8}]"
    return f"{'s64' if field.kind in ('int', 'bool') else 'u64'} {field.name}"


def _parameter(field: Field) -> str:
    if field.kind == "str":
        return f"const char *{field.name}"
    return f"{'s64' if field.kind in ('int', 'bool') else 'u64'} {field.name}"


def _assignment(field: Field) -> str:
    if field.kind == "str":
        return f"strscpy(wanted.{field.name}, {field.name}, {field.size})"
    cut = f"({'s' if field.kind == 'int' else 'u'}{8 * field.size})" if field.size < 8 and field.kind != "bool" else ""
    return f"wanted.{field.name} = {cut}{field.name}"
