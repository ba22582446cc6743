"""What holds for every test: what hypothesis makes up is fixed by the seed, and it takes the time that it takes.

Where two run at a time, those of guests are with one worker, which shares its guests, those that probe processes of
this machine, by its kernel too, with one other; of the rest a file at a time.
"""

from __future__ import annotations

from typing import Any

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

WORKERS = {
    "tests/live/vm": "guests",
    "tests/live/process": "processes",
    "tests/unit/kernel": "processes",
    "tests/unit/process": "processes",
}


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if SEED != FIXED:
        config.option.hypothesis_seed = str(SEED)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class ByWorker(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return WORKERS.get(path.rpartition("/")[0], path)

    return ByWorker(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.getreports("passed"):
        for text in (value for name, value in report.user_properties if name == "figures"):
            terminalreporter.write_line(text)
    if terminalreporter.stats.get("failed") or terminalreporter.stats.get("error"):
        terminalreporter.write_line(AGAIN)
