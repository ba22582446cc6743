"""What works on this machine, and the exact fix for what doesn't.

examples:
  kprobes doctor
  kprobes doctor --format json
Exits with 1 when neither this kernel nor a kernel in a box can be probed.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kprobes.cli.parser import Namespace, Parser
    from kprobes.model.features import Features

APT = "apt-get install -y --no-install-recommends"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. *works* is None where it could not be told; *fix* is what to do."""

    topic: str
    what: str
    works: bool | None
    detail: str = ""
    fix: str = ""


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.add_argument("--format", choices=("table", "json"), default="table", help="json: one object per line")


def run(arguments: Namespace) -> int:
    """Examine the machine."""
    findings = [*_compiler(), *_kernel(), *_guest(), *_process()]
    if arguments.format == "json":
        from kprobes.render.json_lines import JsonLines

        JsonLines(sys.stdout).write(asdict(finding) for finding in findings)
    else:
        _print(findings)
    essential = [finding.works for finding in findings if finding.what in ("kprobes", "QEMU")]
    return 0 if any(essential) else 1


def _print(findings: list[Finding]) -> None:
    from kprobes.render.escape import escape
    from kprobes.render.terminal import Terminal

    terminal = Terminal.of(sys.stdout)
    marks = {
        True: terminal.paint("yes", "green"),
        False: terminal.paint("no ", "red"),
        None: terminal.paint("?  ", "yellow"),
    }
    topic = ""
    for finding in findings:
        if finding.topic != topic:
            topic = finding.topic
            sys.stdout.write(f"{terminal.paint(topic, 'bold')}\n")
        sys.stdout.write(f"  {marks[finding.works]}  {finding.what:<22} {escape(finding.detail)}".rstrip() + "\n")
        if finding.fix:
            sys.stdout.write(f"       {'':<22} fix: {escape(finding.fix)}\n")


def _compiler() -> Iterator[Finding]:
    topic = "Compiler"
    from importlib.metadata import PackageNotFoundError, version

    yield Finding(topic, "Python", True, sys.version.split()[0])
    try:
        yield Finding(topic, "llvmlite", True, version("llvmlite"))
    except PackageNotFoundError:
        yield Finding(topic, "llvmlite", False, "handlers can't be compiled", "pip install llvmlite")


def _kernel() -> Iterator[Finding]:
    from kprobes.engines.targets import Kernel
    from kprobes.errors import KprobesError

    topic = f"This machine's kernel ({os.uname().release})"
    engine = Kernel().open()
    try:
        features = engine.facts().features
        has_types = engine.facts().btf() is not None
    except KprobesError as error:
        yield Finding(topic, "kprobes", False, error.what, error.hint)
        return
    finally:
        engine.close()
    yield Finding(topic, "kprobes", features.kprobe, features.refusal, features.hint)
    if features.kprobe:
        yield from _ways(topic, features)
    yield Finding(topic, "uprobes", features.uprobe)
    yield Finding(
        topic, "ring buffer", features.ring_buffer, "" if features.ring_buffer else "needs Linux 5.8 or later"
    )
    yield _tracefs(topic)
    no_types = "arguments go by arg(1) and regs only: built without CONFIG_DEBUG_INFO_BTF"
    yield Finding(topic, "types (BTF)", has_types, "" if has_types else no_types)


def _tracefs(topic: str) -> Finding:
    """Tell what can be probed without BPF, by `--engine tracefs`."""
    from kprobes.engines.kernel.files import KernelFiles

    files = KernelFiles()
    try:
        found = [name for name in ("kprobe", "uprobe") if files.writable("tracefs", f"{name}_events")]
        works = bool(found) and files.writable("tracefs", "instances")
    finally:
        files.close()
    detail = f"{' and '.join(found)} events, without BPF" if works else "can't be written"
    return Finding(topic, "tracefs", works, detail, "" if works or os.geteuid() == 0 else "run as root")


def _ways(topic: str, features: Features) -> Iterator[Finding]:
    slower = "slower ways are taken"
    yield Finding(topic, "fentry", features.fentry, "" if features.fentry else slower)
    yield Finding(topic, "kprobe.multi", features.kprobe_multi, "" if features.kprobe_multi else slower)


def _guest() -> Iterator[Finding]:
    from kprobes.engines.vm.kernels import FOREIGN_NAMES, KERNEL_NAMES, cached_kernel

    topic = "A kernel in a box (--vm)"
    for what, command, package in (
        ("QEMU", "qemu-system-x86_64", "qemu-system-x86"),
        ("QEMU for arm64", "qemu-system-aarch64", "qemu-system-arm"),
        ("busybox", "busybox", "busybox-static"),
        ("apt", "apt-get", "apt"),
        ("dpkg", "dpkg-deb", "dpkg"),
    ):
        path = shutil.which(command)
        yield Finding(topic, what, path is not None, path or "missing", "" if path else f"{APT} {package}")
    names = KERNEL_NAMES + FOREIGN_NAMES
    there = [name for name in names if cached_kernel(name) is not None]
    rest = [name for name in names if name not in there]
    detail = f"in the cache: {', '.join(there) or 'none'}; downloaded when first used: {', '.join(rest) or 'none'}"
    yield Finding(topic, "kernels", True, detail)


def _process() -> Iterator[Finding]:
    topic = "Processes (-p, --)"
    machine = os.uname().machine
    native = machine == "x86_64"
    detail = "" if native else f"knows x86-64, this machine is {machine}: the kernel's uprobes are taken"
    yield Finding(topic, "process engine", native, detail)
    try:
        with open("/proc/sys/kernel/yama/ptrace_scope", encoding="ascii") as file:  # noqa: PTH123 - one small file
            scope = int(file.read())
    except (OSError, ValueError):
        scope = 0
    allowed = scope == 0 or (scope < 3 and os.geteuid() == 0)
    detail = "" if allowed else f"kernel.yama.ptrace_scope is {scope}: only children can be traced"
    yield Finding(topic, "ptrace", allowed, detail, "" if allowed else "sysctl kernel.yama.ptrace_scope=0 (as root)")
