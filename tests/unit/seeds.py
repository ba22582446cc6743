"""The seed of what tests make up at random.

`make test` makes the same up each time, so that it fails only for what was changed. `KPROBES_SEED` asks for others:
a number, or `random`, which `make soak` does. The end of a run with failures names the seed.
"""

from __future__ import annotations

import os
import random

FIXED = 1


def _chosen(wanted: str) -> int:
    return random.SystemRandom().randrange(2, 1_000_000) if wanted == "random" else int(wanted)


SEED = _chosen(os.environ.get("KPROBES_SEED") or str(FIXED))
os.environ["KPROBES_SEED"] = str(SEED)  # also that of workers and of what tests start
AGAIN = f"KPROBES_SEED={SEED} makes the same up again"
