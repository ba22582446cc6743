"""`kprobes events` on kernels that have only a part of it, and what it says of requests that are off."""

from __future__ import annotations

from errno import ENOENT

import pytest

from kprobes.cli.main import main
from kprobes.cli.probe_events import ProbeEvents
from kprobes.errors import UnsupportedError, UsageError


class UprobesOnly:
    """The tracefs of a kernel with uprobes and without kprobes."""

    def __init__(self) -> None:
        self.content = b""

    def read(self, path: str) -> bytes | None:
        return {"uprobe_events": self.content, "uprobe_profile": b""}.get(path)

    def write(self, path: str, content: bytes) -> int:
        if path != "uprobe_events":
            return ENOENT
        self.content += content
        return 0


def test_a_kernel_with_uprobes_only_has_their_events() -> None:
    events = ProbeEvents(UprobesOnly())
    assert events.matching() == []
    added = events.add("p:uprobes/one /bin/cat:0x1234")
    assert added is not None
    assert (added.name, added.hits, added.misses) == ("uprobes/one", -1, -1)
    with pytest.raises(UnsupportedError, match="no kprobe_events"):
        events.add("p:one vfs_read")


def test_one_word_is_one_definition() -> None:
    with pytest.raises(UsageError, match="several lines"):
        ProbeEvents(UprobesOnly()).add("p:uprobes/one /bin/cat:0x1234\np:two vfs_read")


@pytest.mark.parametrize(
    "words",
    [["add"], ["add", ""], ["remove"], ["enable"], ["disable"], ["filter", "opens"], ["trigger"], ["list", "-p", "1"]],
)
def test_what_is_missing_is_told_with_an_example(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["events", *words]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
