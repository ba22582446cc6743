"""The kernel's BPF helper functions that handlers use, as LLVM calls them.

Source: include/uapi/linux/bpf.h (numbers are ABI), kernel/bpf/helpers.c and kernel/trace/bpf_trace.c (behaviour).
"""

from __future__ import annotations

from kprobes.frozen import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.compiler.back.text import FunctionText

# What LLVM may assume. A pure one gives the same answer during a whole hit, so that a second call can be dropped.
_PURE = "memory(none) nounwind willreturn"
_WRITES_ARGUMENT = "memory(argmem: readwrite, inaccessiblemem: readwrite) nounwind willreturn"
_OUTSIDE = "memory(inaccessiblemem: readwrite) nounwind willreturn"
_ANY = "nounwind willreturn"


@dataclass(frozen=True, slots=True)
class Helper:
    """One helper: its *number*, LLVM types of *result* and *parameters*, and what it touches."""

    number: int
    result: str
    parameters: tuple[str, ...]
    effects: str


_P = "ptr captures(none)"

HELPERS: dict[str, Helper] = {
    "map_lookup_elem": Helper(1, "ptr", ("ptr", _P), _WRITES_ARGUMENT),
    "map_update_elem": Helper(2, "i64", ("ptr", _P, _P, "i64"), _WRITES_ARGUMENT),
    "map_delete_elem": Helper(3, "i64", ("ptr", _P), _WRITES_ARGUMENT),
    "ktime_get_ns": Helper(5, "i64", (), _OUTSIDE),
    "get_prandom_u32": Helper(7, "i64", (), _OUTSIDE),
    "get_smp_processor_id": Helper(8, "i64", (), _PURE),
    "get_current_pid_tgid": Helper(14, "i64", (), _PURE),
    "get_current_uid_gid": Helper(15, "i64", (), _PURE),
    "get_current_comm": Helper(16, "i64", (_P, "i64"), _WRITES_ARGUMENT),
    "get_stackid": Helper(27, "i64", ("ptr", "ptr", "i64"), _ANY),
    "get_current_task": Helper(35, "i64", (), _PURE),
    "get_current_cgroup_id": Helper(80, "i64", (), _PURE),
    "probe_read_user": Helper(112, "i64", (_P, "i64", "i64"), _WRITES_ARGUMENT),
    "probe_read_kernel": Helper(113, "i64", (_P, "i64", "i64"), _WRITES_ARGUMENT),
    "probe_read_user_str": Helper(114, "i64", (_P, "i64", "i64"), _WRITES_ARGUMENT),
    "probe_read_kernel_str": Helper(115, "i64", (_P, "i64", "i64"), _WRITES_ARGUMENT),
    # The same, for memory that LLVM knows of: what was stored there before is not to go away.
    "copy_string": Helper(115, "i64", (_P, "i64", _P), _WRITES_ARGUMENT),
    "ringbuf_reserve": Helper(131, "ptr", ("ptr", "i64", "i64"), _ANY),
    "ringbuf_submit": Helper(132, "void", ("ptr", "i64"), _ANY),
    "map_push_elem": Helper(87, "i64", ("ptr", _P, "i64"), _WRITES_ARGUMENT),
    "map_pop_elem": Helper(88, "i64", ("ptr", _P), _WRITES_ARGUMENT),
    "get_func_ip": Helper(173, "i64", ("ptr",), _PURE),
    "get_attach_cookie": Helper(174, "i64", ("ptr",), _PURE),
}


def call(text: FunctionText, name: str, *operands: str) -> str:
    """Append the call of helper *name*; return its result's operand (empty for one that returns nothing)."""
    helper = HELPERS[name]
    listed = ", ".join(f"{kind} {operand}" for kind, operand in zip(helper.parameters, operands, strict=True))
    expression = f"call {helper.result} inttoptr (i64 {helper.number} to ptr)({listed}) {helper.effects}"
    if helper.result == "void":
        text.do(expression)
        return ""
    return text.let(expression)
