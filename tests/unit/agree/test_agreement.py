"""Interpreter, native code and BPF come to the same results, on handlers and hits that hypothesis makes up.

A case is one hit of one handler. `KPROBES_AGREE_HANDLERS` asks for more handlers than usual, `KPROBES_AGREE_SEED` for
others: a number, or `random`.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

HANDLERS = int(os.environ.get("KPROBES_AGREE_HANDLERS", "400"))
HITS = 6
SEED = os.environ.get("KPROBES_AGREE_SEED", "1")


def test_generated_handlers_agree_on_all_engines(capsys):
    first = random.SystemRandom().getrandbits(32) if SEED == "random" else int(SEED)
    workers = min(os.cpu_count() or 1, 8)
    share = -(-HANDLERS // workers)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "agree.search", str(first + number), str(share), str(HITS)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for number in range(workers)
    ]  # fmt: skip
    figures: Counter[str] = Counter()
    for number, worker in enumerate(running):
        output, _ = worker.communicate()
        assert worker.returncode == 0, f"seed {first + number}:\n{output}"
        figures.update(json.loads(output.splitlines()[-1]))
    with capsys.disabled():
        print(f"\nagreement: {dict(figures)}")
    assert figures["handlers"] >= 0.95 * HANDLERS
    assert figures["native cases"] >= 5 * figures["handlers"]
    assert figures["too long for the verifier"] <= figures["handlers"] // 100
    assert os.geteuid() or figures["bpf cases"] >= figures["native cases"] // 2
