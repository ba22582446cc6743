"""The helpers that generated modules are written with, as C text. A module has those that it uses, and what they need.

Only `copy_from_kernel_nofault` and `copy_from_user_nofault` are exported to modules: strings are read with them, byte
by byte, and symbols that nothing exports are found by what registering a probe of them looks up.
"""

from __future__ import annotations

from kprobes.frozen import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Helper:
    """A piece of C: its *text*, the headers it includes, and other helpers that it needs."""

    text: str
    includes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


_PEEK = """\
/* Copy from the kernel's memory without a fault; zeros where it can't be read. */
static bool peek_kernel(void *to, const void *from, size_t size)
{
	if (!copy_from_kernel_nofault(to, from, size))
		return true;
	memset(to, 0, size);
	return false;
}
"""

_PEEK_USER = """\
/* The same from the memory of the running process. */
static bool peek_user(void *to, const void *from, size_t size)
{
	if (!copy_from_user_nofault(to, (const void __force __user *)from, size))
		return true;
	memset(to, 0, size);
	return false;
}
"""

_PEEK_ANY = """\
/* Copy from the memory of the kernel or of the running process: the address tells which. */
static bool peek(void *to, const void *from, size_t size)
{
	if ((unsigned long)from < TASK_SIZE_MAX)
		return peek_user(to, from, size);
	return peek_kernel(to, from, size);
}
"""


def _macro(name: str, reader: str, what: str) -> str:
    body = (
        "({",
        "\ttypeof(place) const *_from = &(place);",
        "\tunion { typeof(place) value; u8 bytes[sizeof(place)]; } _to;",
        "",
        f"\tif (!{reader}(_to.bytes, _from, sizeof(_to.bytes)))",
        "\t\t(fault) = true;",
        "\t_to.value;",
    )
    wide = 72

    def padded(line: str) -> str:
        shown = len(line.expandtabs(8))
        return line + "\t" * max(1, (wide - shown + 7) // 8) + "\\"

    lines = [padded(f"#define {name}(place, fault) {body[0]}"), *(padded(line) for line in body[1:]), "})"]
    return f"/* {what} */\n" + "\n".join(lines) + "\n"


def _string(name: str, reader: str, what: str) -> str:
    return f"""\
/*
 * Read the string at an address of {what}, cut to size;
 * false, and an empty string, where it can't be read.
 */
static bool {name}(char *to, size_t size, const void *from)
{{
	size_t at;

	for (at = 0; at < size - 1; at++) {{
		if (!{reader}(to + at, from + at, 1)) {{
			memset(to, 0, size);
			return false;
		}}
		if (!to[at])
			break;
	}}
	memset(to + at, 0, size - at);
	return true;
}}
"""


_WORD = """\
/* The word at an address, 0 where it can't be read. */
static unsigned long word_at(unsigned long address, bool *fault)
{
	unsigned long word;

	if (!peek(&word, (const void *)address, sizeof(word)))
		*fault = true;
	return word;
}
"""

_USER_WORD = """\
/* The word at an address of the running process, 0 where it can't be read. */
static unsigned long user_word_at(unsigned long address, bool *fault)
{
	unsigned long word;

	if (!peek_user(&word, (const void *)address, sizeof(word)))
		*fault = true;
	return word;
}
"""

_LOOKUP = """\
/*
 * Find a symbol that is not exported to modules. Registering a probe looks the
 * name up first, so that the address is there even where, as of data, the
 * probe is refused then. (Calling kallsyms_lookup_name() by its address is no
 * way: it may have no ENDBR, and the processor may look for one.)
 */
static unsigned long address_of(const char *name)
{
	struct kprobe finder = { .symbol_name = name };
	unsigned long address, distance;
	char text[KSYM_SYMBOL_LEN];
	const char *plus;

	if (register_kprobe(&finder))
		return (unsigned long)finder.addr;
	address = (unsigned long)finder.addr;
	unregister_kprobe(&finder);
	/* a function: its probe may stand behind the ENDBR */
	sprint_symbol(text, address);
	plus = strchr(text, '+');
	if (plus && sscanf(plus, "+%lx", &distance) == 1)
		address -= distance;
	return address;
}
"""

_FLOOR_DIV = """\
/* Division that rounds down; by zero it gives 0, and is a fault. */
static s64 floor_div(s64 a, s64 b, bool *fault)
{
	s64 quotient;

	if (!b) {
		*fault = true;
		return 0;
	}
	if (b == -1)
		return -(u64)a;
	quotient = a / b;
	return a % b && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}
"""

_FLOOR_MOD = """\
/* What floor_div() leaves: it has the sign of b. */
static s64 floor_mod(s64 a, s64 b, bool *fault)
{
	s64 rest;

	if (!b) {
		*fault = true;
		return 0;
	}
	if (b == -1)
		return 0;
	rest = a % b;
	return rest && (rest < 0) != (b < 0) ? rest + b : rest;
}
"""

_UNSIGNED_DIV = """\
/* Division without sign; by zero it gives 0, and is a fault. */
static u64 unsigned_div(u64 a, u64 b, bool *fault)
{
	if (b)
		return a / b;
	*fault = true;
	return 0;
}
"""

_UNSIGNED_MOD = """\
/* The rest of unsigned_div(). */
static u64 unsigned_mod(u64 a, u64 b, bool *fault)
{
	if (b)
		return a % b;
	*fault = true;
	return 0;
}
"""

_ORDER = """\
/* Whether a is less than b (-1), the same (0) or more (1): a negative number is less than any without sign. */
static int order(s64 a, u64 b)
{
	if (a < 0 || (u64)a < b)
		return -1;
	return (u64)a > b;
}
"""

_FLOOR_DIV_SIGNED = """\
/* floor_div() of a signed by an unsigned integer. */
static s64 floor_div_signed(s64 a, u64 b, bool *fault)
{
	if (b >> 63)
		return a < 0 ? -1 : 0;
	return floor_div(a, b, fault);
}
"""

_FLOOR_MOD_SIGNED = """\
/* What floor_div_signed() leaves. */
static u64 floor_mod_signed(s64 a, u64 b, bool *fault)
{
	if (b >> 63)
		return a < 0 ? a + b : a;
	return floor_mod(a, b, fault);
}
"""

_FLOOR_DIV_UNSIGNED = """\
/* floor_div() of an unsigned by a signed integer. */
static u64 floor_div_unsigned(u64 a, s64 b, bool *fault)
{
	u64 size = b < 0 ? -(u64)b : b;

	if (b >= 0)
		return unsigned_div(a, size, fault);
	return -(a / size + !!(a % size));
}
"""

_FLOOR_MOD_UNSIGNED = """\
/* What floor_div_unsigned() leaves. */
static s64 floor_mod_unsigned(u64 a, s64 b, bool *fault)
{
	u64 size = b < 0 ? -(u64)b : b;

	if (b >= 0)
		return unsigned_mod(a, size, fault);
	return a % size ? a % size - size : 0;
}
"""

_BUCKET = """\
/* The bucket of a value by powers of two: 0 is for what is negative, 1 for zero, n + 2 for 2^n and above. */
static unsigned int bucket_of(u64 value, bool is_signed)
{
	if (is_signed && (s64)value < 0)
		return 0;
	return value ? fls64(value) + 1 : 1;
}
"""

_REPORT_BUCKETS = """\
/* One line for each bucket that holds something. */
static void report_buckets(const char *name, const char *key, atomic64_t *buckets)
{
	unsigned int at;
	s64 count;

	for (at = 0; at < BUCKETS; at++) {
		count = atomic64_read(&buckets[at]);
		if (!count)
			continue;
		if (at < 2)
			pr_info("%s%s: %s %lld\\n", name, key, at ? "0:" : "below 0:", count);
		else
			pr_info("%s%s: %llu to %llu: %lld\\n", name, key, 1ULL << (at - 2),
				(2ULL << (at - 2)) - 1, count);
	}
}
"""

_REPORT_AVERAGE = """\
/* What an average has taken in. */
static void report_average(const char *name, const char *key, s64 total, s64 count)
{
	pr_info("%s%s: %lld values, total %lld, mean %lld\\n", name, key, count, total,
		count ? total / count : 0);
}
"""

_ASSERTION = """\
/* What is to hold: where in the script, and how often it did not. */
struct assertion {
	const char *place;
	atomic64_t failed;
};

/* Count that something does not hold; the first time it is told at once. */
static void assertion_failed(struct assertion *one)
{
	if (atomic64_inc_return(&one->failed) == 1)
		pr_warn("assertion failed: %s\\n", one->place);
}
"""

HELPERS: dict[str, Helper] = {
    "TEXT_SIZE": Helper("/* Strings of definitions are cut to this. */\n#define TEXT_SIZE 128\n"),
    "peek_kernel": Helper(_PEEK, ("linux/string.h", "linux/uaccess.h")),
    "peek_user": Helper(_PEEK_USER, ("linux/string.h", "linux/uaccess.h")),
    "peek": Helper(_PEEK_ANY, ("asm/processor.h",), ("peek_kernel", "peek_user")),
    "word_at": Helper(_WORD, (), ("peek",)),
    "user_word_at": Helper(_USER_WORD, (), ("peek_user",)),
    "peek_string": Helper(_string("peek_string", "peek", "the kernel or of the running process"), (), ("peek",)),
    "peek_user_string": Helper(
        _string("peek_user_string", "peek_user", "the running process"), (), ("peek_user",)
    ),
    "peek_kernel_string": Helper(_string("peek_kernel_string", "peek_kernel", "the kernel"), (), ("peek_kernel",)),
    "PEEK": Helper(
        _macro("PEEK", "peek_kernel", "What lies at a place in the kernel's memory; zeros and a fault where it fails."),
        (), ("peek_kernel",),
    ),
    "PEEK_USER": Helper(
        _macro("PEEK_USER", "peek_user", "The same in the memory of the running process."), (), ("peek_user",)
    ),
    "PEEK_ANY": Helper(_macro("PEEK_ANY", "peek", "The same; the address tells whose memory it is."), (), ("peek",)),
    "address_of": Helper(_LOOKUP, ("linux/kallsyms.h", "linux/kprobes.h", "linux/string.h")),
    "floor_div": Helper(_FLOOR_DIV),
    "floor_mod": Helper(_FLOOR_MOD),
    "unsigned_div": Helper(_UNSIGNED_DIV),
    "unsigned_mod": Helper(_UNSIGNED_MOD),
    "order": Helper(_ORDER),
    "floor_div_signed": Helper(_FLOOR_DIV_SIGNED, (), ("floor_div",)),
    "floor_mod_signed": Helper(_FLOOR_MOD_SIGNED, (), ("floor_mod",)),
    "floor_div_unsigned": Helper(_FLOOR_DIV_UNSIGNED, (), ("unsigned_div",)),
    "floor_mod_unsigned": Helper(_FLOOR_MOD_UNSIGNED, (), ("unsigned_mod",)),
    "BUCKETS": Helper("#define BUCKETS 66\n"),
    "bucket_of": Helper(_BUCKET, ("linux/bitops.h",)),
    "report_average": Helper(_REPORT_AVERAGE, ("linux/printk.h",)),
    "assertion": Helper(_ASSERTION, ("linux/atomic.h", "linux/printk.h")),
    "report_buckets": Helper(_REPORT_BUCKETS, ("linux/atomic.h",), ("BUCKETS",)),
}  # fmt: skip


def with_needs(names: Iterable[str]) -> list[str]:
    """Return *names* and the helpers that they need, in the order in which C wants them."""
    found: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += HELPERS[name].needs
    return [name for name in HELPERS if name in found]
