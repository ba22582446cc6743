"""One guest per kernel for all live tests, apart from what the user of this machine has.

Machines are announced in a runtime directory of their own, and plans kept in a cache of their own. Shared with the user
are the downloaded kernels and headers, and the images made of them, whose names tell all that they are made of.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kprobes.engines.vm.cache import cache_directory
from kprobes.engines.vm.machine import Machine


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    """Return the directory that holds cache and runtime directory, also of the commands that the tests run."""
    shared = [cache_directory(part) for part in ("kernels", "headers", "apt", "machines")]
    with tempfile.TemporaryDirectory(prefix="kprobes-live-") as name, pytest.MonkeyPatch.context() as patch:
        for variable in ("XDG_RUNTIME_DIR", "XDG_CACHE_HOME"):
            Path(name, variable).mkdir(mode=0o700)
            patch.setenv(variable, str(Path(name, variable)))
        own = cache_directory()
        for directory in shared:
            own.joinpath(directory.name).symlink_to(directory)
        yield Path(name)


@pytest.fixture(scope="session")
def machine(home: Path) -> Iterator[Callable[[str], Machine]]:
    """Return a function that gives the running machine of a kernel by version; other commands may use it too."""
    running: dict[str, Machine] = {}

    def machine_of(kernel: str) -> Machine:
        if kernel not in running:
            one = Machine(kernel)
            try:
                one.start()
                one.announce()
            except BaseException:
                one.close()
                raise
            running[kernel] = one
        return running[kernel]

    yield machine_of
    for one in running.values():
        one.close()
