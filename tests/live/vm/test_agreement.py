"""Generated handlers in the kernels of four guests: each is loaded, runs on uprobes, and agrees with the interpreter.

A program calls functions with the arguments of the generated hits, over the memory that the handlers look at.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from agree.engines import own_numbers
from agree.planned import Planned, generated, places, plan_in_file
from agree.universe import Handler
from guest_harness import TIMEOUT_S, Guest, finish

from kprobes.compiler.ir.nodes import Handler as Made
from kprobes.engines.vm.attached import GuestAttached

HANDLERS = int(os.environ.get("KPROBES_AGREE_IN_GUESTS", "100"))
HITS = 5
SEED = 77


@pytest.fixture(scope="module")
def chosen() -> list[tuple[Handler, Made]]:
    return generated(SEED, HANDLERS, HITS, 2)


def attached(guest: Guest, chosen: list[tuple[Handler, Made]]) -> tuple[Planned, GuestAttached]:
    """Attach the handlers *chosen* in the guest: its verifier takes each of them."""
    features = guest.machine.facts().features
    offsets, exchange = places(guest.programs / "agree"), bool(features.attach_cookie)
    planned = plan_in_file("/root/agree", offsets, chosen, shards=2, compare_exchange=exchange)
    return planned, guest.machine.attach(planned.plan)


def test_generated_handlers_load_and_agree_with_the_interpreter(guest: Guest, chosen, tmp_path: Path):
    program = guest.programs / "agree"
    copied = guest.machine.run(["true"], copy=[str(program)])
    assert copied.wait(TIMEOUT_S) == 0
    planned, found = attached(guest, chosen)
    try:
        data = tmp_path / "agree.data"
        data.write_bytes(planned.data())
        pid = finish(guest.machine.run(["/root/agree", "-w", "/root/agree.data"], copy=[str(data)], input=True))
        records = []
        while some := found.poll(0):
            records += some
        found.detach()
        numbers, _ = own_numbers()
        who = {**numbers, "pid": pid, "tid": pid, "uid": 0, "gid": 0}, {"comm": b"agree"}
        for number, handler in enumerate(planned.handlers):
            expected, came = planned.expected(number, who), planned.found(number, records, found.read_map)
            assert came == expected, repr(handler)
    finally:
        found.close()
