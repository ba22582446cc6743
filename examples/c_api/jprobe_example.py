"""The samples/kprobes/jprobe_example.c that kernels had until 4.14: a handler with the parameters of the function.

python examples/c_api/jprobe_example.py 6.12            # in a kernel in a box, or the id of a process
"""

import sys

from kprobes import Jprobe, Machine, Module, Process, jprobe_return, pr_info, register_jprobe


def j_kernel_clone(args):
    pr_info(f"jprobe: clone_flags = {args.flags:#x}, stack_start = {args.stack:#x} stack_size = {args.stack_size:#x}")
    jprobe_return()
    return 0


my_jprobe = Jprobe(symbol_name="kernel_clone", entry=j_kernel_clone)


def main(where="6.12", seconds=5.0):
    with Module(Process(int(where)) if where.isdigit() else Machine(where)) as module:
        register_jprobe(my_jprobe)
        print(f"Planted jprobe at {my_jprobe.kp.addr:#x}", flush=True)
        for line in module.kmsg(float(seconds)):
            print(line, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
