"""Runs with BCC: bcc_events.py kprobe|uprobe PLACE together|after COUNT COMMAND... prints what came to Python.

COMMAND makes COUNT hits of the probe, each of which puts 40 bytes into a ring buffer that has room for all of them. The
ring is read while the command runs (`together`) or once it has ended (`after`). Printed: events, the sum of their
numbers, records that were lost, and seconds from the command's start (or end) to the last event.
"""

import os
import subprocess
import sys
import time

from bcc import BPF

PROGRAM = r"""
BPF_RINGBUF_OUTPUT(events, PAGES);
BPF_ARRAY(lost, u64, 1);

struct event { u64 time; u32 pid; u32 tid; u64 ip; u64 sp; u64 number; };

int hit(u64 *regs)
{
    struct event event = {};
    u64 id = bpf_get_current_pid_tgid();
    event.time = bpf_ktime_get_ns();
    event.pid = id >> 32;
    event.tid = id;
    event.ip = regs[16];
    event.sp = regs[19];
    event.number = 1;
    if (events.ringbuf_output(&event, sizeof(event), 0)) {
        int zero = 0;
        u64 *count = lost.lookup(&zero);
        if (count)
            __sync_fetch_and_add(count, 1);
    }
    return 0;
}
"""
QUIET_S = 2
PAGES = 2048


def main(kind, place, order, count, *command):
    bpf = BPF(text=PROGRAM.replace("PAGES", str(PAGES)))
    if kind == "kprobe":
        bpf.attach_kprobe(event=place, fn_name="hit")
    else:
        path, symbol = place.split(":")
        bpf.attach_uprobe(name=path, sym=symbol, fn_name="hit")
    got = total = 0
    events = bpf["events"]

    def callback(_context, data, _size):
        nonlocal got, total
        event = events.event(data)
        got += 1
        total += event.number

    events.open_ring_buffer(callback)
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        if order == "after":
            process.wait()
            begin = time.perf_counter()
        last = begin
        while got < int(count) and time.perf_counter() - last < QUIET_S:
            before = got
            bpf.ring_buffer_poll(100)
            if got > before:
                last = time.perf_counter()
    print(got, total, bpf["lost"][0].value, last - begin, flush=True)
    os._exit(0)  # where there is no tracefs, BCC fails to take its uprobe away


main(*sys.argv[1:])
