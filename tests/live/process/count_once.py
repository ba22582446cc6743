"""Start a program that waits for a line, count a function of it, and print the outcome: PROGRAM FUNCTION ARGUMENTS."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from process_harness import attached, counts, plan_for

from kprobes.engines.process.target import Process
from kprobes.errors import KprobesError

program, function, *arguments = sys.argv[1:]
plan = plan_for(Path(program), {function})
with subprocess.Popen([program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
    assert process.stdout
    process.stdout.readline()
    try:
        with attached(Process(process.pid), plan) as (_, found):
            output, _ = process.communicate(b"\n", timeout=60)
            print("counted", counts(plan, found)[function], flush=True)
    except KprobesError as error:
        print(type(error).__name__, error.what, flush=True)
        output, _ = process.communicate(b"\n", timeout=60)
    sys.stdout.write(output.decode())
