"""`kprobes list --armed` of somebody who sees a part of the machine."""

import os

import pytest

from kprobes.cli.main import main


@pytest.mark.parametrize(("user", "told"), [(0, False), (65534, True)])
def test_who_is_not_root_is_told_that_others_were_not_looked_at(user, told, monkeypatch, capsys):
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert main(["list", "--armed"]) == 0
    assert ("take root" in capsys.readouterr().err) == told
