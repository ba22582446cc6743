"""Which images are kept, and which are thrown away."""

import os

import pytest

from kprobes.engines.vm import images
from kprobes.engines.vm.command import GuestShape
from kprobes.errors import TargetError


@pytest.fixture
def directories(tmp_path):
    made = []
    for number in range(4):
        made.append(tmp_path / f"6.12-c2-m512-{number}")
        made[-1].mkdir()
        os.utime(made[-1], (1000 + number, 1000 + number))
    (tmp_path / "6.12-c1-m512-0").mkdir()
    return made


def image(directory):
    return images.Image(None, GuestShape(), None, directory)


def test_ours_and_the_newest_other_image_are_kept(directories):
    images._forget_older(image(directories[0]), "6.12-c2-m512")
    assert [directory.exists() for directory in directories] == [True, False, False, True]
    assert (directories[0].parent / "6.12-c1-m512-0").exists()


def test_an_image_that_a_machine_uses_is_kept(directories):
    held = images.hold(directories[1])
    again = images.hold(directories[1])
    images._forget_older(image(directories[0]), "6.12-c2-m512")
    assert directories[1].exists()
    os.close(held)
    os.close(again)
    images._forget_older(image(directories[0]), "6.12-c2-m512")
    assert not directories[1].exists()


def test_an_image_that_is_gone_can_not_be_held(tmp_path):
    with pytest.raises(TargetError, match="is gone"):
        images.hold(tmp_path / "absent")
