"""What handlers of registered probes are called with besides the registers: `p` and `ri`, as they see them.

A handler that is registered as one of the kernel's (`def pre(p, regs)`) is compiled into a small handler that calls it,
written by `kapi.handlers`. These objects are the arguments of that call.
"""

from __future__ import annotations

from kprobes.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Registered:
    """`p`, the probe: `p.addr`, `p.symbol_name`, `p.offset`.

    *behind*: the handler runs so many bytes behind the probed instruction, by a probe of its own there.
    """

    symbol_name: str
    offset: int = 0
    behind: int = 0


@dataclass(frozen=True, slots=True)
class Instance:
    """`ri`, one call of a function: `ri.rp`, `ri.ret_addr`, `ri.task` and `ri.data`, what is kept for the call.

    *data* is the struct class that names and types its fields, or for how many bytes there is room. *returns_to* is the
    register that holds the return address at the return, or empty where it lies on the stack.
    """

    rp: Registered
    data: object = 0
    returns_to: str = ""


@dataclass(frozen=True, slots=True)
class CallData:
    """`ri.data`."""

    of: Instance


@dataclass(frozen=True, slots=True)
class Calling:
    """Of the text that calls handlers of a registered probe: a user sees these, never the text itself.

    *only_0* says why they can't return anything else, empty where they can.
    """

    only_0: str = ""


def get_kretprobe(ri: Instance) -> Registered:
    """Mean `ri.rp`: the one call of the kernel's interface that handlers make."""
    return ri.rp
