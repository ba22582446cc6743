"""Attaching to a process: the first probe, thousands of functions, all exports of libcrypto; beside Frida and uprobes.

Ours runs in an interpreter of its own that has imported everything: `python -m bench.process_attach PID ENGINE PLACE`
prints what it took. Times are the clock's, from names to all in place, and from there to nothing left.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING

from bench.figures import Figure
from bench.lab import PROGRAMS, ROOT, Lab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ROUNDS = 3
FUNCTIONS = 5000
MS = 1e-3
# What has mapped libcrypto; it says so and sleeps.
CRYPTO = "import ctypes, sys; ctypes.CDLL('libcrypto.so.3'); print('ready', flush=True); sys.stdin.read()"

Took = dict[str, float]


def run(lab: Lab) -> Iterator[Figure]:
    """Yield the figures."""
    many = str(_program_of(lab, FUNCTIONS))
    one = _rounds(lab, [many], {"ours": _ours("process", "many:f0")})
    yield Figure(
        "attach to a process: one function", one["ours"]["plan"] + one["ours"]["attach"], most=150 * MS, absolute=True
    )
    yield Figure("  the program stood still for", one["ours"]["pause"], most=10 * MS, absolute=True)
    ways = {"ours": _ours("process", "many:f*")}
    if not os.geteuid():
        ways["uprobes"] = _ours("uprobe", "many:f*")
    yield from _figures(f"attach to a process: {FUNCTIONS:,} functions", _rounds(lab, [many], ways), "uprobes")
    ways = {"ours": _ours("process", "libcrypto:*")}
    if find_spec("frida"):
        ways["frida"] = _by_frida
    crypto = _rounds(lab, [sys.executable, "-c", CRYPTO], ways)
    sites = f"attach to a process: libcrypto's {crypto['ours']['sites']:,.0f} exports"
    yield from _figures(sites, crypto, "frida")
    if "frida" in crypto:
        yield Figure("  of them probed", crypto["ours"]["sites"], crypto["frida"]["sites"], "", "Frida", least=1.0)


def _figures(name: str, took: Mapping[str, Took], other: str) -> Iterator[Figure]:
    ours, theirs, against = took["ours"], took.get(other, {}), {"frida": "Frida"}.get(other, other)
    yield Figure(name, ours["plan"] + ours["attach"], theirs.get("attach"), against=against, most=0.8, absolute=True)
    yield Figure("  of it: names to a plan", ours["plan"])
    yield Figure("  processor time of plan, attach and detach", ours["processor"])
    yield Figure("  the program stood still for", ours["pause"], most=0.2, absolute=True)
    yield Figure("  taken away in", ours["detach"], theirs.get("detach"), against=against, most=0.15, absolute=True)


def _program_of(lab: Lab, count: int) -> str:
    """Return a program of *count* functions, the busiest of which it calls all the time."""
    source, program = lab.directory / "many.c", lab.directory / "many"
    body = "__attribute__((noinline)) int f{0}(int a) {{ volatile int kept[{1}] = {{a}}; return kept[0] * {0}; }}"
    lines = [body.format(number, 2 + number % 7) for number in range(count)]
    lines.append(
        '#include <stdio.h>\n#include <unistd.h>\nint main(void) { int i, sum = 0; puts("ready"); fflush(stdout);'
    )
    lines += [f"if (sum == {number}) sum += f{number}(sum);" for number in range(1, count)]
    lines.append("for (i = 0;; i++) { f0(i); if (i % 1000 == 0) usleep(100); } }")
    source.write_text("\n".join(lines))
    subprocess.run(["gcc", "-O1", "-w", "-o", str(program), str(source)], check=True)
    return str(program)


def _rounds(lab: Lab, words: list[str], ways: Mapping[str, Callable[[Lab, int], Took]]) -> dict[str, Took]:
    """Return of each way the least of what each part took, each round in a process of its own."""
    found: dict[str, list[Took]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                process.stdout.readline()
                try:
                    found[name].append(way(lab, process.pid))
                    if process.poll() is not None:
                        raise RuntimeError(f"{name} has killed the program")
                finally:
                    process.kill()
    return {name: {part: min(one[part] for one in all_of) for part in all_of[0]} for name, all_of in found.items()}


def _ours(engine: str, place: str) -> Callable[[Lab, int], Took]:
    def took(lab: Lab, pid: int) -> Took:
        words = [sys.executable, "-m", "bench.process_attach", str(pid), engine, place]
        done = subprocess.run(words, cwd=ROOT, env=lab.environment, capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise RuntimeError(done.stderr[-500:])
        answer: Took = json.loads(done.stdout)
        return answer

    return took


def _by_frida(_lab: Lab, pid: int) -> Took:
    words = [sys.executable, str(PROGRAMS / "frida_probe.py"), str(pid), "many"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        sites, *times = (float(process.stdout.readline().split()[-1]) for _ in range(2))
        process.stdin.close()
        return {"sites": sites, "attach": times[0], "detach": float(process.stdout.readline().split()[-1])}


def main(words: list[str]) -> int:
    """Attach in this interpreter, everything imported, and print what it took."""
    from kprobes.arch.x86_64 import image, liveness, sites  # noqa: F401 - imported while no clock runs
    from kprobes.engines.kernel.engine import KernelEngine
    from kprobes.engines.process.target import Process
    from kprobes.model.probe import Probe
    from kprobes.model.within import Within
    from kprobes.planner.process import plan_process
    from kprobes.session import Session, attach_to

    pid, engine, place = int(words[0]), words[1], words[2]
    probe = Probe("uprobe", (place,))
    before = os.times()
    begin = time.perf_counter()
    if engine == "process":
        target = Process(pid).open()
        plan = plan_process([probe], Within(pid, native=True))
        planned = time.perf_counter()
        attachment = target.attach(plan)
        session = Session(target, plan, attachment)
        pauses = attachment.pauses_ms
    else:
        planned = begin
        session = attach_to(KernelEngine(), probe, within=Within(pid))
        pauses = (0.0,)
    attached = time.perf_counter()
    session.detach()
    detached = time.perf_counter()
    session.close()
    used = os.times()
    print(
        json.dumps(
            {
                "plan": planned - begin,
                "attach": attached - planned,
                "pause": max(pauses) * MS,
                "detach": detached - attached,
                "processor": used.user + used.system + used.children_user + used.children_system - sum(before[:4]),
                "sites": len(session.plan.sites),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
