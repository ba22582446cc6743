"""The closing words: quiet when all is well, loud when something was not seen."""

from __future__ import annotations

from kprobes.render.summary import ProbeSummary, summary


def test_all_well_is_one_line() -> None:
    probes = [ProbeSummary("vfs_read", 1234, way="fentry"), ProbeSummary("vfs_*", 0, way="kprobe.multi", sites=63)]
    assert summary(probes, 5.0) == "1,234 hits in 5.00 s at 64 places (fentry, kprobe.multi), nothing missed\n"
    assert summary([ProbeSummary("f", 1)], 0.5) == "1 hit in 0.50 s at 1 place, nothing missed\n"


def test_a_kernel_that_does_not_count_misses_is_not_said_to_have_none() -> None:
    assert "nothing missed" not in summary([ProbeSummary("f", 1, missed=-1)], 1.0)
    assert "does not count misses" in summary([ProbeSummary("f", 1, missed=-1)], 1.0)


def test_losses_are_told_by_probe_with_what_they_mean() -> None:
    probes = [
        ProbeSummary("kretprobe vfs_read", 1234, 3, way="kretprobe"),
        ProbeSummary("kprobe vfs_*", 123_456, -1, 17, 1, "kprobe.multi", 63),
        ProbeSummary("kprobe good", 5, way="fentry"),
    ]
    assert summary(probes, 65.2).splitlines() == [
        "124,695 hits in 65.2 s at 65 places (kretprobe, kprobe.multi, fentry)",
        "warning: not everything was seen: 3 missed, 17 lost, 1 fault",
        "  PROBE                  HITS  MISSED  LOST  FAULTS  WAY",
        "  kprobe vfs_*        123,456       ?    17       1  kprobe.multi",
        "  kretprobe vfs_read    1,234       3     0       0  kretprobe",
        "  missed: no handler ran (more calls at once than maxactive, nested hits, or calls left by an exception)",
        "  lost: events came faster than they were read; filter in the handler, or aggregate in a map",
        "  faults: memory that a handler read was not there (it read zero), or a map was full",
    ]


def test_only_what_happened_is_explained() -> None:
    text = summary([ProbeSummary("f", 1, lost=1)], 1.0)
    assert "lost:" in text
    assert "missed:" not in text
    assert "faults:" not in text


def test_maps_that_were_full_are_named_with_what_to_do() -> None:
    text = summary([ProbeSummary("f", 9, faults=3)], 1.0, dropped={"few": 1, "o\x1bpens": 2000})
    assert text.splitlines()[-2:] == [
        "  o\\x1bpens was full: 2,000 writes dropped; declare it with more entries=",
        "  few was full: 1 write dropped; declare it with more entries=",
    ]


def test_a_session_without_any_hit_says_so() -> None:
    assert summary([ProbeSummary("vfs_read", 0)], 2.0).splitlines()[-1] == "no hits: vfs_read was not called"
    many = [ProbeSummary(f"f{n}", 0) for n in range(7)]
    assert summary(many, 2.0).splitlines()[-1] == "no hits: f0, f1, f2, f3, f4 and 2 more were not called"


def test_the_worst_of_many_are_listed() -> None:
    lines = summary([ProbeSummary(f"f{n}", n, lost=n) for n in range(1, 31)], 1.0).splitlines()
    assert lines[3].split()[:2] == ["f30", "30"]
    assert "  and 10 more" in lines


def test_names_and_ways_are_escaped() -> None:
    for probe in (ProbeSummary("\x1b", 0, way="\x9b"), ProbeSummary("\x1b", 1, 1, way="\x9b")):
        assert not {"\x1b", "\x9b"} & set(summary([probe], 1.0))
