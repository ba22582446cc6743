"""Generated handlers in the kernels of four guests: each is loaded, runs on uprobes, and agrees with the interpreter.

A program calls functions with the arguments of the generated hits, over the memory that the handlers look at.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from agree.engines import own_numbers
from agree.planned import generated, places, plan_in_file
from guest_harness import Guest, finish

HANDLERS = int(os.environ.get("KPROBES_AGREE_IN_GUESTS", "100"))
HITS = 5
SEED = 77


@pytest.fixture(scope="module")
def chosen():
    return generated(SEED, HANDLERS, HITS, 2)


def test_generated_handlers_load_and_agree_with_the_interpreter(guest: Guest, chosen, tmp_path: Path):
    features = guest.machine.facts().features
    shards = 1 << max(0, features.cpus - 1).bit_length()
    assert shards == 2
    offsets = places(guest.programs / "agree")
    newer = bool(features.attach_cookie)
    planned = plan_in_file("/root/agree", offsets, chosen, shards=shards, compare_exchange=newer)
    data = tmp_path / "agree.data"
    data.write_bytes(planned.data())
    running = guest.machine.run(
        ["/root/agree", "-w", "/root/agree.data"], copy=[str(guest.programs / "agree"), str(data)], input=True
    )
    attached = guest.machine.attach(planned.plan)
    try:
        pid = finish(running)
        records = []
        while found := attached.poll(0):
            records += found
        attached.detach()
        numbers, _ = own_numbers()
        who = {**numbers, "pid": pid, "tid": pid, "uid": 0, "gid": 0}, {"comm": b"agree"}
        for number, handler in enumerate(planned.handlers):
            expected, came = planned.expected(number, who), planned.found(number, records, attached.read_map)
            assert came == expected, repr(handler)
    finally:
        attached.close()
