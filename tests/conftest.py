"""What holds for every test: what hypothesis makes up is fixed by the seed, and it takes the time that it takes."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from seeds import AGAIN, FIXED, SEED

# No deadline and no complaint about slowness: how busy a machine is says nothing about the code.
settings.register_profile(
    "steady",
    derandomize=SEED == FIXED,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("steady")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if SEED != FIXED:
        config.option.hypothesis_seed = str(SEED)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if terminalreporter.stats.get("failed") or terminalreporter.stats.get("error"):
        terminalreporter.write_line(AGAIN)
