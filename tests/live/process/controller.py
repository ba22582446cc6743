"""A controller to be killed: attaches to a process, says so, and detaches and attaches for ever.

Usage: controller.py PID PROGRAM FUNCTION [once]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from process_harness import attached, plan_for

from kprobes.engines.process.target import Process

pid, program, function = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
plan = plan_for(program, {function})
print("starting", flush=True)
while True:
    with attached(Process(pid), plan):
        print("attached", flush=True)
        time.sleep(3600 if sys.argv[4:] else 0.001)
