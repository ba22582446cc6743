"""The kernel's samples/kprobes/kprobe_example.c: what is printed each time that a function is entered.

python examples/c_api/kprobe_example.py 6.12            # in a kernel in a box
python examples/c_api/kprobe_example.py $(pidof server) libc:malloc
"""

import sys

from kprobes import Kprobe, Machine, Module, Process, pr_info, register_kprobe


def handler_pre(p, regs):
    pr_info(f"<{p.symbol_name}> p->addr = {p.addr:#x}, ip = {regs.ip:#x}, flags = {regs.flags:#x}")
    return 0


def handler_post(p, regs, flags):
    pr_info(f"<{p.symbol_name}> p->addr = {p.addr:#x}, flags = {regs.flags:#x}")


kp = Kprobe(symbol_name="kernel_clone", pre_handler=handler_pre, post_handler=handler_post)


def main(where="6.12", symbol="kernel_clone", seconds=5.0):
    kp.symbol_name = symbol
    with Module(Process(int(where)) if where.isdigit() else Machine(where)) as module:
        register_kprobe(kp)
        print(f"Planted kprobe at {kp.addr:#x}", flush=True)
        for line in module.kmsg(float(seconds)):
            print(line, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
