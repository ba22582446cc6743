"""What maps look like at the end of `kprobes run`."""

from kprobes.cli.pictures import json_rows, picture_of
from kprobes.events.aggregate import Keyed
from kprobes.events.average import Average
from kprobes.events.stacks import Frames, named
from kprobes.events.value import StackId
from kprobes.render.terminal import PLAIN

STACK = Frames(("vfs_read+0", "ksys_read+0x10"))


def test_extremes_have_no_total():
    held = Keyed({"dd": 4096, "cat": 7})
    assert picture_of("longest", held, PLAIN, adds_up=False) == "longest: 2 keys\n  dd: 4096\n  cat: 7\n"
    assert "total (2)" in picture_of("calls", held, PLAIN)
    assert picture_of("shortest", None, PLAIN) == "shortest: nothing\n"


def test_means_are_shown_with_their_number():
    assert picture_of("mean", Keyed({"dd": Average(4, 10)}), PLAIN) == "mean: 1 keys\n  dd: 2.5 (4 values)\n"
    assert list(json_rows("mean", Average(4, 10))) == [{"map": "mean", "count": 4, "total": 10, "mean": 2.5}]


def test_arrays_and_queues_show_what_is_not_zero_of_many_values():
    few = picture_of("last", [(0, ""), (7, "a\x1bb")], PLAIN)
    assert few.splitlines()[:2] == ["last: 2 values", "  [0] 0, "]
    assert "\x1b" not in few
    many = picture_of("last", [0] * 50 + [7], PLAIN)
    assert many.splitlines() == ["last: 51 values, 50 of them zero", "  [50] 7"]
    assert list(json_rows("last", [(1, "a"), 2])) == [{"map": "last", "values": [[1, "a"], 2]}]


def test_stacks_are_shown_frame_by_frame():
    text = picture_of("where", Keyed({(STACK, "dd"): 3}), PLAIN)
    assert text.splitlines() == ["where: 1 stack", "    vfs_read+0", "    ksys_read+0x10", "  dd: 3", ""]
    assert list(json_rows("where", {STACK: 3})) == [{"map": "where", "key": list(STACK), "value": 3}]


def test_stacks_with_the_same_frames_are_one_and_lost_ones_say_why():
    held = {(StackId(1), "a"): 2, (StackId(2), "a"): 3, (StackId(-17), "a"): 1}
    found = named(held, lambda _: ["f+0", "g+1"])
    assert found == {(("f+0", "g+1"), "a"): 5, (("[not kept: EEXIST]",), "a"): 1}
    assert [str(frames) for frames, _ in found] == ["f+0 < g+1", "[not kept: EEXIST]"]
