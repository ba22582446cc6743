"""What users are told to do about a refusal, where the kernel's message leaves it open."""

import pytest

from kprobes.errors import DefinitionError
from kprobes.grammar.events import parse


@pytest.mark.parametrize(
    ("kind", "line", "hint"),
    [
        ("uprobe", "p:mine ./tool:main", "`kprobes info ./tool:main` tells the file offset"),
        ("uprobe", "p:mine ./tool", "a uprobe's place is PATH:0xOFFSET"),
        ("uprobe", "p:mine ./tool:0x10 $arg1", "%di %si %dx %cx %r8 %r9"),
        ("uprobe", "p:mine tool:0x10", "with a slash in its path"),
        ("kprobe", "p:mine /bin/tool:0x10", "lines of uprobe_events"),
        ("kprobe", "p:mine", "a place stands behind the event's name"),
        ("kprobe", "p:mine vfs_read-8", "in a program PATH:OFFSET"),
        ("kprobe", "p:mine vfs_read+8 $arg1", "a function without an offset"),
        ("kprobe", "p:mine vfs_read\0", "no NUL"),
        ("kprobe", "q vfs_read", "a line begins with p"),
    ],
)
def test_a_refusal_says_what_to_write_instead(kind, line, hint):
    with pytest.raises(DefinitionError) as caught:
        parse(line, "7.2", kind)
    assert hint in caught.value.hint
