"""The builtins of handlers as helper calls."""

from __future__ import annotations

from kprobes.compiler.back.arithmetic import convert
from kprobes.compiler.back.bpf.helpers import call
from kprobes.compiler.back.bpf.target import STACKS, stacks_layout
from kprobes.compiler.ir.nodes import U64
from kprobes.errors import InternalError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.compiler.back.bpf.part import BpfPart
    from kprobes.compiler.ir.nodes import Builtin

# name -> (helper, right shift, bits kept)
_HELPERS = {
    "now": ("ktime_get_ns", 0, 64),
    "pid": ("get_current_pid_tgid", 32, 32),
    "tid": ("get_current_pid_tgid", 0, 32),
    "host_pid": ("get_current_pid_tgid", 32, 32),
    "host_tid": ("get_current_pid_tgid", 0, 32),
    "uid": ("get_current_uid_gid", 0, 32),
    "gid": ("get_current_uid_gid", 32, 32),
    "cpu": ("get_smp_processor_id", 0, 64),
    "cgroup": ("get_current_cgroup_id", 0, 64),
    "random": ("get_prandom_u32", 0, 32),
    "task": ("get_current_task", 0, 64),
}
_USER_STACK = 1 << 8  # BPF_F_USER_STACK
_STACKS = {"stack": 0, "user_stack": _USER_STACK}
NUMBERS = frozenset({*_HELPERS, *_STACKS})


def builtin(part: BpfPart, node: Builtin) -> None:
    """Bind the result of a builtin."""
    if node.name in _STACKS:
        part.need(stacks_layout(part.target))
        value = call(part.text, "get_stackid", part.context, part.map(STACKS), str(_STACKS[node.name]))
    elif node.name in _HELPERS:
        value = _number(part, *_HELPERS[node.name])
    elif node.name == "cycles":
        raise part.unsupported(
            "cycles()", node.place, "take now(); or probe a process by our own engine, without --engine"
        )
    else:
        raise InternalError(f"{part.handler.name}: no builtin is called {node.name!r}")
    part.bind(node.to, convert(part.text, U64, node.to.type, value))


def _number(part: BpfPart, helper: str, shift: int, bits: int) -> str:
    value = call(part.text, helper)
    if shift:
        return part.text.let(f"lshr i64 {value}, {shift}")
    if bits < 64:
        return part.text.let(f"and i64 {value}, {(1 << bits) - 1}")
    return value
