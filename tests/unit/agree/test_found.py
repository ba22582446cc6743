"""Disagreements that generated handlers have shown, each at its smallest."""

from __future__ import annotations

import os

import pytest

from agree.engines import compiled, on_bpf, on_interpreter, on_native
from agree.universe import NODE_PLACES, TEXT_PLACES, Handler, Hit

HITS = (
    Hit((1, 2, 3, 4, TEXT_PLACES[3], NODE_PLACES[0])),
    Hit((0, (1 << 64) - 1, 1 << 63, 1000, TEXT_PLACES[2], NODE_PLACES[1]), 7),
    Hit((1 << 63, 8, 255, 65535, 8, 0), 1 << 63),
)

FOUND = {
    "a string that is read twice, once at another size": """
    t = text.string(12)
    emit(f=n)
    t = string(node.id, 7)
    emit(t)
""",
    "a function that is called where nothing gets to": """
    v = 1
    if 65536 < 3:
        v = double(n)
        by_text.add(by=label(node))
    emit(v)
""",
    "a loop whose bound is a remainder": """
    t = "none"
    for k in range(u % 5):
        if node:
            t = string(text, 9)
    emit(t)
""",
    "a string of a name and a number": """
    t = f"{label(node)}:{c:08x}"
    emit(t)
""",
    "nothing is added to a count": """
    by_text.add((i % 1), by=node.name)
""",
    "a loop in a loop, neither of which has a bound of its own": """
    p = node
    k = n
    while p is not None and p.tag & 7:
        p = p.next
        spread.add(c + 7)
        while k > 5:
            k >>= 1
            total.add((node.next if p.at.x else node.peer).wide)
    emit(k, p)
""",
    "a loop whose bound is small, with much in its body": """
    for k in range(c & 3):
        v, t, b, w = wide[n, node.name]
        v = seen[v << (node is not None)]
        emit(f=not (comm() == "/etc/"), v=v, t=t, b=b, w=w)
""",
    "one loop after the other": """
    p = node
    while p is not None and p.tag & 7:
        p = p.next
        emit(i, n, c, u, text.string(), node)
    while p is not None and p.tag & 7:
        p = p.next
        note(by_text, 63, string(text, 24))
    emit(p)
""",
    "a loop whose bound is a quotient": """
    for k in range((u & 255) // 50):
        if node.on:
            sizes.add(k)
    emit(u)
""",
}


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_once_agrees(name):
    handler = Handler("def h(i, n, c, u, text, node):" + FOUND[name], hits=HITS)
    made = compiled(handler)
    expected = on_interpreter(made, handler)
    assert on_native(made, handler) == expected
    if os.geteuid() == 0:
        assert on_bpf(made, handler) == expected
