"""Runs in a guest: carries out a plan by tracefs, and writes what the kernel's trace file has and what was read.

python3 trace_reader.py PLAN COMMAND     standard output: u32 length and bytes of the trace file, then the records
"""

import os
import sys

from kprobes.engines.kernel.engine import KernelEngine
from kprobes.model import wire

INSTANCES = "/sys/kernel/tracing/instances"


def main(plan: str, command: str) -> None:
    """Carry out the plan in the file *plan* while *command* runs."""
    with open(plan, "rb") as file:  # noqa: PTH123
        wanted = wire.plan_from_bytes(file.read())
    with KernelEngine() as engine:
        attached = engine.attach(wanted)
        os.system(command)
        attached.detach()
        (name,) = (one for one in os.listdir(INSTANCES) if one.startswith("kprobes_py"))  # noqa: PTH208
        with open(f"{INSTANCES}/{name}/options/record-tgid", "w") as file:  # noqa: PTH123
            file.write("0")  # else the kernel shows processes as well
        with open(f"{INSTANCES}/{name}/trace", "rb") as file:  # noqa: PTH123
            trace = file.read()
        sys.stdout.buffer.write(len(trace).to_bytes(4, "little") + trace)
        while (span := attached.poll_raw(0)).data:
            sys.stdout.buffer.write(span.data)
        sys.stdout.buffer.flush()
        attached.close()


main(*sys.argv[1:])
