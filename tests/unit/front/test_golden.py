"""Each construct of the language has a golden file with the IR it becomes; each mistake one with its message."""

import pytest

from front.cases import GOLDEN, check, read_cases


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.golden")), ids=lambda path: path.stem)
def test_sources_become_the_golden_ir_or_error(path):
    check(path)


def test_names_of_cases_are_unique():
    names = [case.name for path in GOLDEN.glob("*.golden") for case in read_cases(path)]
    assert len(names) == len(set(names))


def test_every_error_has_a_caret_and_a_hint_or_says_it_all():
    for case in read_cases(GOLDEN / "errors.golden"):
        head, shown, caret = case.expected.splitlines()[:3]
        assert head.startswith(("script.py:", "helpers.py:")), case.name
        assert caret.strip() == "^", case.name
        assert shown[: len(caret)].strip() or shown.strip(), case.name
