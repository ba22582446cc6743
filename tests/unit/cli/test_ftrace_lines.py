"""`--format ftrace` against the trace files of real kernels: one buffer, read as pages and as the kernel's text."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kprobes.cli.ftrace_lines import FtraceTrace, default_name
from kprobes.engines.kernel.trace_format import TOLD, Converter, parse_format
from kprobes.engines.kernel.trace_pages import Page
from kprobes.events.decode import Decoder
from kprobes.events.record import Event
from kprobes.frozen import replace
from kprobes.grammar.events import parse
from kprobes.model.definition import Definition
from kprobes.model.fetched import event_layout, kernels_layout
from kprobes.model.layout import RECORD_HEADER, EventLayout, pack_fields
from kprobes.model.plan import Site
from kprobes.render.ftrace import Argument, Context, heading, line, style_of
from kprobes.symbols.frames import KernelFrames

GOLDEN = Path(__file__).parents[2] / "golden" / "ftrace"
KERNELS = ("5.10", "6.1", "6.12", "7.2")
PAGE = 4096


@dataclass
class Plan:
    events: list[EventLayout] = field(default_factory=list)
    sites: list[Site] = field(default_factory=list)


@dataclass
class Target:
    """As much of a session as the lines need."""

    release: str
    frames: KernelFrames
    plan: Plan = field(default_factory=Plan)

    def printed(self, address: int) -> str:
        return self.frames.printed(address)


def with_strings(layout: EventLayout) -> EventLayout:
    """Return *layout* with texts for each `symstr`: what was captured has them, which we wouldn't ask a kernel for."""
    shapes = [
        (one.name, "str", 64) if one.kind == "symstr" else (one.name, one.kind, one.size) for one in layout.fields
    ]
    fields, size = pack_fields(shapes, RECORD_HEADER)
    return replace(layout, fields=fields, size=size)


def captured(kernel: str) -> tuple[Target, list[Event]]:
    """Return the events of the captured pages of *kernel*, in order, with what names their addresses."""
    directory = GOLDEN / kernel
    target = Target(kernel, KernelFrames(str(directory / "kallsyms")))
    texts = (directory / "formats").read_text().split("name: ")[1:]
    formats = {text.partition("\n")[0]: parse_format(text) for text in texts}
    converters = {}
    for number, text in enumerate((directory / "events").read_text().splitlines()):
        definition = parse(text, kernel, "uprobe" if "/root/" in text else "kprobe")
        assert isinstance(definition, Definition)
        layout = kernels_layout(with_strings(event_layout(definition, number)))
        target.plan.events.append(layout)
        target.plan.sites.append(Site(0, definition.event, path="/root/calls" if definition.is_user else ""))
        shape = formats[definition.event]
        converters[shape.number] = Converter(layout, number, shape)
    words = (row.split(b" ", 1) for row in (directory / "cmdlines").read_bytes().splitlines())
    threads = {int(number): name for number, name in words} | {0: b"<idle>"}
    records = []
    for cpu in (0, 1):
        raw = (directory / f"cpu{cpu}").read_bytes()
        for page in (Page(raw[at : at + PAGE]) for at in range(0, len(raw), PAGE)):
            for time, start, _ in page.events:
                number, tid = (int.from_bytes(page.data[start + at : start + at + 2], "little") for at in (0, 4))
                told = {"_time": time, "_cpu": cpu, "_pid": tid, "_comm": threads.get(tid, b"<...>")}
                records.append((time, converters[number].record(page.data, start, [told[name] for name in TOLD])))
    records.sort(key=lambda one: one[0])
    names = [site.name for site in target.plan.sites]
    return target, Decoder(target.plan.events, names).decode([record for _, record in records])


def written(target: Target, events: list[Event]) -> bytes:
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, "ascii")
    FtraceTrace(target, stream).write(events)  # type: ignore[arg-type]  # a small session
    return buffer.getvalue()


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_lines_and_the_heading_are_the_kernels_own_byte_for_byte(kernel: str) -> None:
    target, events = captured(kernel)
    own = heading(style_of(kernel), cpus=2, entries=len(events)).encode() + written(target, events)
    assert own.splitlines() == (GOLDEN / kernel / "trace").read_bytes().splitlines()
    assert own == (GOLDEN / kernel / "trace").read_bytes()
    assert len(events) > 100


def test_a_terminal_gets_no_control_characters() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    target, events = captured("6.1")
    odd = [event for event in events if '"ird' in str(event.fields.get("filename"))]
    stream = Terminal()
    FtraceTrace(target, stream).write(odd)  # type: ignore[arg-type]
    shown = stream.getvalue()
    assert odd
    assert '/tmp/we"ird\\nname' in shown
    assert all(row.endswith('"') or " how=" in row for row in shown.splitlines())


CONTEXT = Context("a-rather-long-name", 1234567890, 130, 1_999_999_999_500)
LATEST = style_of("7.2")


@pytest.mark.parametrize(
    ("flags", "preempt", "release", "shown"),
    [
        (0, 0, "5.10.0-30-amd64", "...."), (0x01, 0, "5.10", "d..."), (0x7D, 3, "5.10", "dNZ3"),
        (0, 0, "6.1.0", "....."), (0xFF, 0xFF, "6.12.1+deb13", "DNZff"), (0xFF, 0xFF, "7.2", "DBZff"),
        (0x80, 0x21, "6.1", "b..12"), (0x24, 0, "6.1", ".N..."), (0x04, 0, "6.1", ".n..."), (0x20, 0, "6.1", ".p..."),
        (0x02, 0, "6.1", "....."), (0x02, 0, "6.18", ".l..."), (0x22, 0, "6.18", ".L..."), (0x06, 0, "6.18", ".b..."),
        (0x08, 0, "6.1", "..h.."), (0x10, 0, "6.1", "..s.."), (0x18, 0, "6.1", "..H.."), (0x40, 0, "6.1", "..z.."),
        (0x58, 0, "6.1", "..Z.."), (0, 0, "5.4-rc12", "...."), (0x02, 0, "7.2-rc3", ".l..."),
    ],
)  # fmt: skip
def test_the_moment_of_a_hit_is_told_as_each_kernel_does(flags: int, preempt: int, release: str, shown: str) -> None:
    context = Context("cat", 1, 0, 0, flags, preempt)
    assert f"[000] {shown} " in line(context, "e", "f", (), style_of(release))


def test_columns_grow_and_times_are_rounded() -> None:
    assert line(CONTEXT, "e", "f+0x0/0x1", (), LATEST) == (
        "a-rather-long-name-1234567890 [130] .....  2000.000000: e: (f+0x0/0x1)\n"
    )


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        (Argument("a", "uint", [7]), "a=7"), (Argument("a", "int", [-7]), "a=-7"), (Argument("a", "hex", [7]), "a=0x7"),
        (Argument("a", "char", [0x41]), "a='A'"), (Argument("a", "str", ['x"y']), 'a="x"y"'),
        (Argument("a", "str", ["(fault)"]), "a=(fault)"), (Argument("a", "symbol", ["f+0x1/0x2"]), "a=f+0x1/0x2"),
        (Argument("a", "symstr", ["f+0x1/0x2"]), 'a="f+0x1/0x2"'), (Argument("a", "hex", [1], True), "a={0x1}"),
        (Argument("a", "str", ["b", "(fault)"], True), 'a={"b",(fault)}'), (Argument("a", "text", ["E"]), "a=E"),
    ],
)  # fmt: skip
def test_each_type_is_shown_as_the_kernel_does(argument: Argument, shown: str) -> None:
    assert line(CONTEXT, "e", "f", (argument,), LATEST).endswith(f": e: (f) {shown}\n")


def test_events_without_a_name_get_the_kernels_default() -> None:
    assert default_name(Site(0, "vfs_read", "vfs_read", 4), returns=False) == "p_vfs_read_4"
    assert default_name(Site(0, "x", address=0x10, path="/usr/bin/my-tool"), returns=True) == "p_my_0x10"
    assert default_name(Site(0, "x", address=0x10, offset=2, path="/lib/my_lib.so"), returns=False) == "p_my_0x12"
    assert default_name(Site(0, "f", "f.isra.0"), returns=True) == "r_f_isra_0_0"
    assert default_name(Site(0, "f", "f" * 70), returns=True) == f"r_{'f' * 61}"
    address = Site(0, "0xffffffff81000000", address=0xFFFFFFFF81000000, offset=4)
    assert default_name(address, returns=False) == "p_0xffffffff81000004"


@pytest.mark.parametrize(
    ("site", "definition"),
    [
        (Site(0, "f", "f.isra.0", 4), "p f.isra.0+4"),
        (Site(0, "x", address=0x10, path="/usr/bin/my_tool"), "p /usr/bin/my_tool:0x10"),
        (Site(0, "x", address=0x10, path="/usr/bin/my-tool"), "r /usr/bin/my-tool:0x10"),
        (Site(0, "x", address=0xFFFFFFFF81000000), "p 0xffffffff81000000"),
    ],
)
def test_the_default_name_is_that_of_a_definition(site: Site, definition: str) -> None:
    found = parse(definition, "7.2", "uprobe" if site.path else "kprobe")
    assert isinstance(found, Definition)
    assert default_name(site, returns=found.is_return) == found.event
