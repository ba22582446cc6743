"""Classes of `kprobes.frozen` are frozen dataclasses to whoever uses them."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest

from kprobes.frozen import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Point:
    """A place on a map."""

    x: int
    y: int = 0
    note: str = field(default="", compare=False)

    @property
    def sum(self) -> int:
        return self.x + self.y


@dataclass(frozen=True, slots=True, eq=False)
class Thing:
    name: str = ""


@dataclass(frozen=True, slots=True)
class Bag:
    things: list[int] = field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class Real:
    x: int
    y: int = 0
    note: str = dataclasses.field(default="", compare=False)


def test_values_go_by_place_by_name_and_by_default():
    assert (Point(1).x, Point(1).y, Point(1, 2).y, Point(y=3, x=1).y) == (1, 0, 2, 3)
    assert Point(1, 2).sum == 3


@pytest.mark.parametrize(
    ("values", "named"), [((), {}), ((1, 2, "", 4), {}), ((1,), {"x": 2}), ((1,), {"z": 2}), ((), {"y": 2})]
)
def test_wrong_values_are_refused_as_dataclasses_do(values, named):
    with pytest.raises(TypeError):
        Real(*values, **named)
    with pytest.raises(TypeError):
        Point(*values, **named)


def test_a_factory_makes_a_new_default_for_each():
    one, other = Bag(), Bag()
    one.things.append(1)
    assert (one.things, other.things) == ([1], [])
    assert dataclasses.fields(Bag)[0].default_factory is list


def test_equal_values_are_equal_and_hash_alike_but_for_what_is_left_out():
    assert Point(1, 2) == Point(1, 2, "other")
    assert hash(Point(1, 2)) == hash(Point(1, 2, "other"))
    assert Point(1, 2) != Point(2, 1)
    assert Point(1) != Real(1)
    assert Thing("a") != Thing("a")


def test_nothing_can_be_set_deleted_or_added():
    point = Point(1)
    for name in ("x", "new"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(point, name, 2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        del point.x
    assert not hasattr(point, "__dict__")


def test_it_shows_all_fields():
    assert repr(Point(1, note="n")) == "Point(x=1, y=0, note='n')"


def test_replace_changes_only_what_is_named():
    for change in (replace, dataclasses.replace):
        assert change(Point(1, 2, "n"), y=5) == Point(1, 5)
        assert change(Point(1, 2, "n"), y=5).note == "n"
        with pytest.raises(TypeError):
            change(Point(1), z=1)


def test_the_dataclasses_module_takes_it_for_its_own():
    assert dataclasses.is_dataclass(Point)
    assert dataclasses.astuple(Point(1, 2)) == (1, 2, "")
    assert [(one.name, one.default, one.compare) for one in dataclasses.fields(Point)] == [
        (one.name, one.default, one.compare) for one in dataclasses.fields(Real)
    ]


def test_copies_and_pickles_are_equal():
    point = Point(1, 2, "n")
    for twin in (copy.copy(point), copy.deepcopy(point), pickle.loads(pickle.dumps(point))):
        assert twin == point
        assert twin.note == "n"


def test_match_takes_fields_by_place():
    match Point(1, 2):
        case Point(x, y):
            assert (x, y) == (1, 2)
        case _:
            pytest.fail("not matched")
