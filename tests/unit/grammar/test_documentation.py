"""The page on definitions says what is so."""

import re
from pathlib import Path

from kprobes.grammar.events import Events, parse
from kprobes.grammar.facts import FEATURES, KERNELS
from kprobes.model.definition import Memory, Register

PAGE = (Path(__file__).parents[3] / "docs/definitions.md").read_text()


def rows():
    return [f"| {one.since} | {one.text} | {f'`{one.example}`' if one.example else ''} |" for one in FEATURES]


def test_table_of_differences_is_that_of_the_parser():
    table = re.search(r"\| since \|.*?\n\n", PAGE, re.DOTALL)[0].splitlines()[2:-1]
    assert table == rows()


def test_examples_of_differences_show_them():
    for feature in FEATURES:
        if not feature.example:
            continue
        verdicts = []
        for kernel in KERNELS:
            events = Events(kernel)
            events.check("p:mine/read vfs_read")
            found = events.check(feature.example.replace("p vfs_read", "p:x vfs_read"))
            verdicts.append((found.ok, found.error and found.error.code, found.canonical))
        since = KERNELS.index(feature.since)
        assert verdicts[since] != verdicts[since - 1], feature


def test_example_in_python_holds():
    found = parse("p:opened do_sys_openat2 filename=+0(%si):string", kernel="6.1")
    assert (found.event, found.place.symbol) == ("opened", "do_sys_openat2")
    assert found.arguments[0].term == Memory(Register("si"), 0)
    listed = Events("7.2", kind="uprobe").check("p /bin/cat:0x1234 %ax").canonical
    assert listed == "p:uprobes/p_cat_0x1234 /bin/cat:0x0000000000001234 arg1=%ax"
