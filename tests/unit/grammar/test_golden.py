"""Thousands of generated definitions, and what four real kernels said of them."""

import json
import sys
from pathlib import Path

import pytest
from recorded_world import replayed

from kprobes.grammar.facts import KERNELS
from kprobes.grammar.refusal import MESSAGES

sys.path.append(str(Path(__file__).parents[2] / "live/vm"))
from definition_truth import GuestFiles, masked, parsed

GOLDEN = Path(__file__).parents[2] / "golden/grammar"
KINDS = ("kprobe", "uprobe", "dynamic")


@pytest.fixture(scope="module")
def written():
    return json.loads((GOLDEN / "definitions.json").read_text())


@pytest.fixture(scope="module", params=KERNELS)
def captured(request):
    return request.param, json.loads((GOLDEN / f"{request.param}.json").read_text())


@pytest.mark.parametrize("kind", KINDS)
def test_parser_says_what_the_kernel_said(kind, captured, written):
    kernel, answers = captured
    world = replayed(answers["world"], GuestFiles(), typed=True)
    ours = parsed(kernel, kind, world, written[kind])
    wrong = []
    for lines, real, mine in zip(written[kind], answers[kind], ours, strict=True):
        for at, (theirs, one) in enumerate(zip(real, mine, strict=True)):
            said = [one.errno, one.message, one.column] if one.errno else "\n".join(masked(one.listed))
            if one.errno and one.message and one.column is None and theirs[:2] == said[:2]:
                continue  # a column that depends on the kernel's memory
            if said != theirs:
                wrong.append((lines[: at + 1], theirs, said))
    assert wrong == []


def test_every_message_is_seen():
    seen = set()
    for kernel in KERNELS:
        answers = json.loads((GOLDEN / f"{kernel}.json").read_text())
        for kind in KINDS:
            seen |= {one[1] for sequence in answers[kind] for one in sequence if isinstance(one, list)}
    assert set(MESSAGES.values()) - seen == set()
