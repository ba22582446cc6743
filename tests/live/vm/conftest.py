"""The guests of four kernels, and the programs that run in them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from guest_harness import Guest

from kprobes.engines.vm.kernels import KERNEL_NAMES
from kprobes.engines.vm.machine import Machine

SOURCES = Path(__file__).parents[1] / "programs"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.vm)


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the guest programs, compiled so that they need nothing there."""
    directory = tmp_path_factory.mktemp("guest-programs")
    for source in SOURCES.glob("*.c"):
        target = directory / source.stem
        subprocess.run(["gcc", "-O2", "-g", "-static", "-pthread", "-o", target, source], check=True)
    return directory


@pytest.fixture(scope="session")
def guest_of(machine: Callable[[str], Machine], programs: Path) -> Callable[[str], Guest]:
    """Return a function that gives the guest of a kernel."""
    guests: dict[str, Guest] = {}

    def guest(kernel: str) -> Guest:
        if kernel not in guests:
            guests[kernel] = Guest(kernel, machine(kernel), programs)
        return guests[kernel]

    return guest


@pytest.fixture(params=KERNEL_NAMES)
def guest(request: pytest.FixtureRequest, guest_of: Callable[[str], Guest]) -> Iterator[Guest]:
    """Return the guest of each kernel in turn."""
    return guest_of(request.param)


@pytest.fixture
def newest(guest_of: Callable[[str], Guest]) -> Guest:
    """Return one guest, for what does not differ between kernels."""
    return guest_of("6.12")
