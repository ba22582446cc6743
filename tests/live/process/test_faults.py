"""A probed instruction that faults: what the program's signal handler sees, and how it goes on."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from process_harness import redirected
from test_instructions import place
from test_native import handler

from kprobes import Process, attach
from kprobes.model.probe import Probe
from kprobes.session import ProbeStats

pytestmark = pytest.mark.process


def probed(tmp_path: Path, *command: str, probes: tuple[Probe, ...], exact: bool) -> tuple[str, list[ProbeStats]]:
    """Run the program to its end; return what it printed, and the counts."""
    with redirected(tmp_path / "out", tmp_path / "err"):
        target = Process.spawn(command, exact_faults=exact)
        with attach(*probes, to=target) as session:
            engine = session.engine
            assert engine.wait(60)  # type: ignore[attr-defined]
            assert engine.exit_status == 0  # type: ignore[attr-defined]
            stats = session.stats
    return (tmp_path / "out").read_text(), stats


def plain(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("how", ["go-on", "leave"])
@pytest.mark.parametrize("way", ["", "breakpoint"])
def test_handlers_see_the_true_address_where_asked_for(
    build: Callable[..., Path], tmp_path: Path, how: str, way: str
) -> None:
    program = build("faults.c")
    probes = (Probe("uprobe", ("load_from",), way=way), Probe("uprobe", (place(program, "at_div", "divide"),), way=way))
    shown, stats = probed(tmp_path, str(program), how, probes=probes, exact=True)
    assert shown == plain(str(program), how)
    assert " known 20 strange 0" in shown or how == "leave"
    assert [(one.hits, one.missed) for one in stats] == [(100, 0), (100 if how == "go-on" else 90, 0)]


@pytest.mark.parametrize("how", ["go-on", "leave"])
def test_without_it_the_program_goes_on_all_the_same(build: Callable[..., Path], tmp_path: Path, how: str) -> None:
    program = build("faults.c")
    shown, _ = probed(tmp_path, str(program), how, probes=(Probe("uprobe", ("load_from",)),), exact=False)
    assert shown.split(" known ")[0] == plain(str(program), how).split(" known ")[0]
    assert " strange 10" in shown


def test_a_yield_whose_instruction_faults_away_is_missed(build: Callable[..., Path], tmp_path: Path) -> None:
    program = build("faults.c")
    text = "def h():\n    at = regs.di\n    yield\n    emit(at, value=regs.ax)\n"
    _, stats = probed(tmp_path, str(program), "leave", probes=(handler(text, "load_from"),), exact=True)
    assert stats[0].hits + (stats[0].missed or 0) == 100
    assert stats[0].missed == 10
