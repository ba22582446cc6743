"""The kernel's samples/kprobes/kretprobe_example.c: what a function returns, and how long it takes.

python examples/c_api/kretprobe_example.py 6.12         # in a kernel in a box
python examples/c_api/kretprobe_example.py $(pidof server) libc:malloc
"""

import sys

from kprobes import (
    Kretprobe,
    Machine,
    Module,
    Process,
    now,
    pr_info,
    register_kretprobe,
    regs_return_value,
    struct,
    u64,
)


@struct
class MyData:
    entry_stamp: u64


def entry_handler(ri, regs):
    ri.data.entry_stamp = now()
    return 0


def ret_handler(ri, regs):
    taken = now() - ri.data.entry_stamp
    pr_info(f"{ri.rp.kp.symbol_name} returned {regs_return_value(regs)} and took {taken} ns to execute")
    return 0


my_kretprobe = Kretprobe(handler=ret_handler, entry_handler=entry_handler, data_size=MyData, maxactive=20)


def main(where="6.12", symbol="kernel_clone", seconds=5.0):
    my_kretprobe.kp.symbol_name = symbol
    with Module(Process(int(where)) if where.isdigit() else Machine(where)) as module:
        register_kretprobe(my_kretprobe)
        print(f"Planted return probe at {symbol}: {my_kretprobe.kp.addr:#x}", flush=True)
        for line in module.kmsg(float(seconds)):
            print(line, flush=True)
        print(f"Missed probing {my_kretprobe.nmissed} instances of {symbol}")


if __name__ == "__main__":
    main(*sys.argv[1:])
