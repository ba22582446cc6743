from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from kprobes.cli.outfile import replacing
from kprobes.errors import SyscallError


def test_a_file_is_replaced_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("before")
    with pytest.raises(UnicodeError), replacing(str(path)) as stream:
        stream.write("half" + b"\xff".decode())
    assert path.read_text() == "before"
    with replacing(str(path)) as stream:
        stream.write("after")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("after", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_a_device_or_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with replacing(str(pipe)) as stream:
        stream.write("text")
    assert os.read(reader, 100) == b"text"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_where_no_file_can_be_made_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(SyscallError, match="can't write"), replacing(str(tmp_path / "no" / "file")):
        pass
    with pytest.raises(SyscallError, match="can't write"), replacing(str(tmp_path)):
        pass
