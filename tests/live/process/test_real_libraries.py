"""Real libraries, instruction by instruction: each is armed or refused with a reason, and what is armed does no harm.

KPROBES_EVERY=1 offers every instruction of libc and of CPython; by default it is one in some dozens.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from test_real_programs import ENVIRONMENT, FIXED_CHUNKS, PROGRAMS, Feeder, Real, input_of, run_plain, sample_of

from kprobes.arch.x86_64.image import Image
from kprobes.arch.x86_64.patch import IN_PROCESS, Tactic
from kprobes.arch.x86_64.sites import SitePlan, plan_site
from kprobes.engines.kernel.engine import KernelEngine
from kprobes.engines.process.target import Process
from kprobes.model.probe import Probe
from kprobes.model.within import Within
from kprobes.session import attach, attach_to
from kprobes.symbols.code import load_code
from kprobes.symbols.elf import ElfFile
from kprobes.symbols.elf_symbols import ElfSymbols

pytestmark = pytest.mark.process

EVERY = int(os.environ.get("KPROBES_EVERY", "41"))
SLIDE = 0x7F12_3400_0000
SITES = 400
NONE_RUNS = "padding, which nothing runs"


def mapped(name: str) -> str:
    """Return the path of a library that this Python has mapped."""
    paths = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if name in line}
    return paths.pop()


LIBC = mapped("libc.so.6")
CPYTHON = str(Path(sys.executable).resolve())
if sysconfig.get_config_var("Py_ENABLE_SHARED"):
    CPYTHON = mapped("libpython3")


@cache
def image_of(path: str) -> tuple[Image, int]:
    """Return the code of the file *path* as it could lie in a process, and address minus file offset there."""
    raw, known = Path(path).read_bytes(), load_code(path)
    with ElfFile(path) as elf:
        loads = elf.loads
    (code,) = (one for one in loads if one.flags & 1)
    slide = SLIDE + code.address - code.offset

    def read(address: int, size: int) -> bytes:
        for one in loads:
            at = address - SLIDE - one.address
            if 0 <= at < one.file_size:
                return raw[one.offset + at : one.offset + min(at + size, one.file_size)]
        return b""

    functions = [(start + slide, end + slide) for start, end in known.functions]
    entries = [entry + slide for entry in known.entries]
    content = raw[code.offset : code.offset + code.file_size]
    return Image(code.offset + slide, content, functions, entries=entries, read=read), slide


def boundaries_by_objdump(path: str) -> set[int]:
    words = ["objdump", "-d", "-w", "--no-show-raw-insn", path]
    listing = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return {int(found, 16) for found in re.findall(r"^ +([0-9a-f]+):", listing, re.MULTILINE)}


@pytest.mark.parametrize("path", [LIBC, CPYTHON], ids=["libc", "cpython"])
def test_each_instruction_is_armed_or_refused_with_a_reason(path: str) -> None:
    assert shutil.which("objdump")
    image, _ = image_of(path)
    known = boundaries_by_objdump(path)
    tactics, refusals = Counter[str](), Counter[str]()
    number = 0
    for start in image.starts:
        function = image.function(start)
        assert function is not None
        for item in function.instructions:
            number += 1
            if number % EVERY:
                continue
            plan = plan_site(image, item.address)
            check_plan(plan)
            tactics[plan.tactic] += 1
            if plan.patch is None:
                refusals[plan.reason] += 1
            else:
                assert item.address - SLIDE in known
    print(Path(path).name, number, dict(tactics), dict(refusals))
    in_process = sum(tactics[tactic] for tactic in IN_PROCESS)
    assert in_process > 100_000 / EVERY
    assert in_process >= 0.999 * (in_process + tactics[Tactic.BREAKPOINT])
    assert refusals.total() - refusals[NONE_RUNS] < tactics.total() / 500


def check_plan(plan: SitePlan) -> None:
    assert plan.reason
    assert (plan.patch is None) == (plan.tactic == Tactic.REFUSED) == bool(plan.error)
    if plan.patch is None:
        assert plan.error == ("EINVAL" if plan.reason == NONE_RUNS else "EOPNOTSUPP")


def middles(path: str, names: list[str]) -> list[str]:
    """Return instructions inside of the functions called *names*, a few of each, as `FILE:0xOFFSET`."""
    image, slide = image_of(path)
    with ElfFile(path) as elf:
        starts = {one.name: one.address + SLIDE for one in ElfSymbols(elf).functions}
    chance, found = random.Random(5), set()
    for name in names:
        function = image.function(starts[name]) if name in starts else None
        if function is None or function.start != starts[name]:
            continue
        inner = [one for one in function.instructions[1:] if plan_site(image, one.address).tactic in IN_PROCESS]
        found |= {one.address - slide for one in chance.sample(inner, min(len(inner), 6))}
    return [f"{path}:{offset:#x}" for offset in sorted(found)]


def wait_until_it_asks(feeder: Feeder, pid: int) -> None:
    """Wait until the process has read everything and waits for more."""
    call = Path(f"/proc/{pid}/syscall")
    while feeder.unread or not call.read_text().startswith("0 0x0 "):
        time.sleep(0.0002)


def count_from_second_chunk(real: Real, places: list[str], out: Path, *, kernel: bool) -> dict[str, int]:
    """Return the hits of each place, from when the program has read its first chunk and asks for the second."""
    with (
        out.open("wb") as output,
        subprocess.Popen(real.argv, stdin=subprocess.PIPE, stdout=output, env=ENVIRONMENT) as process,
    ):
        feeder = Feeder(real, process)
        wait_until_it_asks(feeder, process.pid)
        probe = Probe("uprobe", tuple(places))
        if kernel:
            session = attach_to(KernelEngine(), probe, within=Within(process.pid))
        else:
            session = attach(probe, to=Process(process.pid))
        with session:
            while feeder.chunks < FIXED_CHUNKS:
                feeder.feed()
                wait_until_it_asks(feeder, process.pid)  # it reads the same pieces every time
            feeder.finish()
            assert process.wait(60) == 0
            assert not any(one.missed for one in session.stats)
            return {one.name.partition(":")[2]: one.hits for one in session.stats}


def kernel_can(offset: str) -> bool:
    """Tell whether the kernel's uprobes may be put on an instruction of libc, and are hit as often as ours.

    They refuse those with VEX prefixes; a copied EVEX instruction (62) stores garbage (sqlite3's database on 6.18). The
    call in which the program waits (`syscall`, 0f 05) is begun anew when it is stopped to be probed: perhaps a hit.
    """
    image, slide = image_of(LIBC)
    code = image.bytes_at(int(offset, 16) + slide, 2)
    return code[:1] not in (b"\x62", b"\xc4", b"\xc5") and code != b"\x0f\x05"


@pytest.mark.parametrize("name", ["perl", "sqlite3", "bash"])
def test_hundreds_of_instructions_inside_of_libc_are_probed_with_the_kernels_counts_and_no_other_output(
    tmp_path: Path, name: str
) -> None:
    real, out = PROGRAMS[name], tmp_path / "out"
    _, expected, _ = run_plain(real, input_of(real, FIXED_CHUNKS))
    entries = count_from_second_chunk(real, ["libc:*"], out, kernel=False)
    assert out.read_bytes() == expected
    places = middles(LIBC, [name for name, hits in sorted(entries.items(), key=lambda one: -one[1]) if hits])[:SITES]
    assert len(places) > SITES / 4
    counted = count_from_second_chunk(real, places, out, kernel=False)
    assert out.read_bytes() == expected
    assert len(counted) == len(places)
    sample = sample_of([(one, hits) for one, hits in counted.items() if kernel_can(one)])
    assert sum(sample.values()) > 100
    reference = count_from_second_chunk(real, [f"{LIBC}:{one}" for one in sample], out, kernel=True)
    assert reference == sample
    assert out.read_bytes() == expected
