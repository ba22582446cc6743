"""What can't be done is refused with one clear message and an exit code, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from guest_harness import Done, Guest, left_in, run_kprobes

from kprobes import emit, kprobe
from kprobes.engines.vm.cache import cache_directory
from kprobes.errors import VerifierError
from kprobes.model.plan import Program
from kprobes.planner.cache import cached_plan


def refused(done: Done, *parts: str) -> None:
    """Check that *done* is one message that has *parts*, without a traceback or escapes."""
    assert "Traceback" not in done.errors
    assert "\x1b" not in done.errors
    messages = [line for line in done.errors.splitlines() if line.startswith("error: ")]
    assert len(messages) == 1, done.errors
    for part in parts:
        assert part in done.errors, done.errors


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["vfs_raed"], ["no function 'vfs_raed'", "hint: did you mean vfs_read"]),
        (["vfs_rea?zzz*"], ["no function 'vfs_rea?zzz*'"]),
        (["no_such_module:vfs_read"], ["no_such_module"]),
        (["jiffies"], ["jiffies can't be probed: it is data"]),
        (["vfs_read+0x100000"], ["vfs_read+0x100000"]),
        (["t:sched:sched_swich"], ["no tracepoint 'sched:sched_swich'", "kprobes list 't:sched:*'"]),
        (["t:nosuch:thing"], ["no tracepoint 'nosuch:thing'"]),
        (["vfs_read", "--if", "count >"], ["this is no Python", "if count >:", "^"]),
        (["vfs_read", "--if", "conut > 1"], ["nothing is called 'conut' here", "did you mean count?", "^"]),
        (["vfs_read", "--print", "file.f_pox"], ["struct file has no field 'f_pox'", "did you mean f_pos"]),
        (["vfs_read", "--print", "file + 'x'"], ["+ does not take a struct file * and a string", "^"]),
        (["vfs_read", "--print", "retval"], ["retval", "^"]),
        (["vfs_read", "--print", "arg(0)"], ["there is no argument 0", "^"]),
        (["vfs_read", "--print", "regs.xyz"], ["xyz", "^"]),
        (["vfs_read", "--print", "open('/etc/passwd')"], ["open", "^"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_in_a_probe_is_told_with_what_was_meant(newest, words, parts):
    refused(newest.command("trace", "-n1", *words, status=1), *parts)


@pytest.mark.parametrize(
    "words",
    [
        ["trace"],
        ["trace", "vfs_read", "--bogus"],
        ["trace", "vfs_read", "-n", "0"],
        ["trace", "vfs_read", "--duration", "soon"],
        ["trace", "r:vfs_read+0x10"],
        ["trace", "vfs_read", "--"],
        ["trace", "vfs_read", "-p", "1"],
        ["trace", "vfs_read", "--print", "count,,pid"],
        ["trace", "vfs_read", "--copy", "/no/such/file", "--", "true"],
        ["trace", "vfs_read", "--", "no-such-program"],
        ["hist", "vfs_read", "count", "--linear", "1:2"],
        ["run", "/no/such/script.py"],
    ],
    ids=" ".join,
)
def test_a_wrong_request_exits_with_2(newest, words):
    refused(newest.command(*words, status=2))


def test_a_kernel_that_is_not_known_exits_with_2():
    refused(run_kprobes("trace", "--kernel", "4.19", "vfs_read", status=2), "no kernel '4.19'", "5.10, 6.1, 6.12, 7.2")


def symbols_of(guest: Guest) -> list[tuple[int, str, str]]:
    """Return (address, kind, name) of the symbols of vmlinux."""
    rows = [line.split() for line in Path(guest.machine.facts().kallsyms()).read_text().splitlines()]
    return [(int(row[0], 16), row[1], row[2]) for row in rows if len(row) == 3]


def test_a_name_of_several_functions_is_refused_with_their_addresses(guest):
    functions = [(address, name) for address, kind, name in symbols_of(guest) if kind in "tT" and "." not in name]
    counted = Counter(name for _, name in functions)
    listed = Counter((guest.machine.facts().text("functions") or "").split())
    name = next(name for name, count in counted.items() if count == 2 and listed[name] == 2)
    addresses = [hex(address) for address, other in functions if other == name]
    refused(guest.command("trace", name, "-n1", status=1), f"'{name}' is ambiguous", *addresses)
    guest.command("trace", addresses[0], "--duration", "0.1")


def test_a_blacklisted_function_is_refused_as_such(guest):
    known = {name for _, kind, name in symbols_of(guest) if kind in "tT" and not name.startswith("__pfx_")}
    blacklist = (guest.machine.facts().text("blacklist") or "").split()[1::2]
    assert len(blacklist) > 100
    for name in [name for name in blacklist if name in known][::100]:
        refused(guest.command("trace", name, "-n1", status=1), f"{name} can't be probed", "blacklist")


SCRIPT = """from kprobes import emit, kprobe


@kprobe("vfs_read")
def handler(file, count):
    {line}
"""


@pytest.mark.parametrize(
    ("line", "caret", "parts"),
    [
        ("import os", "import", ["import is not part of the handler language"]),
        ("with file: pass", "with", ["is not part of the handler language"]),
        ("emit(x=file.f_pox)", "f_pox", ["struct file has no field 'f_pox'", "hint: did you mean f_pos"]),
        ("emit(x=file.f_mode / 2)", "file.f_mode / 2", ["hint: "]),
        ("emit(x=count + 'text')", "'text'", ["+ takes integers"]),
        ("emit(x=[i for i in range(3)])", "[i for", []),
        ("emit(x=unknown_name)", "unknown_name", ["nothing is called 'unknown_name' here"]),
        ("for i in range(10_000_000): emit(x=i)", "range", ["hint: at most"]),
    ],
    ids=["import", "with", "field", "division", "types", "comprehension", "name", "loop"],
)
def test_a_line_outside_the_language_is_shown_with_file_place_and_caret(newest, tmp_path, line, caret, parts):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(line=line))
    done = newest.command("run", str(script), "--duration", "1", status=1)
    refused(done, f"{script}:6:", line, *parts)
    assert f"{script}:6:{4 + line.index(caret) + 1}" in done.errors
    shown = done.errors.splitlines()
    source = next(number for number, text in enumerate(shown) if text.endswith(line))
    assert shown[source + 1].rindex("^") == shown[source].index(line) + line.index(caret)


def test_a_script_that_is_no_python_is_refused_with_its_line(newest, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("from kprobes import kprobe\n\ndef broken(:\n    pass\n")
    refused(newest.command("run", str(script), status=1), f"{script}:3")


def test_what_the_verifier_refuses_is_shown_on_the_python_line(guest, tmp_path):
    @kprobe("vfs_read", way="kprobe")
    def read(file, count):
        emit(count=count)

    machine = guest.target.open()
    try:
        plan = cached_plan([read], machine.facts())
        with pytest.raises(VerifierError) as caught:
            machine.attach(broken(plan))
        assert "unreachable insn" in caught.value.log or "R0 !read_ok" in caught.value.log, caught.value.log
        assert caught.value.source.strip()
        assert caught.value.file == __file__
        assert read.handler.line < caught.value.line <= read.handler.line + 2
        assert "emit(count=count)" in caught.value.source or "def read" in caught.value.source
    finally:
        machine.close()
    assert left_in(guest) == ""


def broken(plan):
    """Return *plan* with an `exit` before the program has a result: the verifier looks at what comes to it."""
    changed = [
        Program(**{name: getattr(program, name) for name in Program.__slots__ if name != "instructions"},
                instructions=b"\x95" + bytes(7) + program.instructions[8:])
        for program in plan.programs
    ]  # fmt: skip
    return type(plan)(**{**{name: getattr(plan, name) for name in plan.__slots__}, "programs": tuple(changed)})


# What the machine itself lacks


def environment(tmp_path: Path, **changes: str) -> dict[str, str]:
    """Return an environment with a runtime directory and a cache of its own."""
    for name in ("XDG_RUNTIME_DIR", "XDG_CACHE_HOME"):
        (tmp_path / name).mkdir(mode=0o700)
    own = {name: str(tmp_path / name) for name in ("XDG_RUNTIME_DIR", "XDG_CACHE_HOME")}
    return {**os.environ, **own, **changes}


def copy_kernel(tmp_path: Path) -> Path:
    """Copy the kernel 6.12 into the cache of `environment`, and return its directory."""
    source, target = cache_directory("kernels") / "6.12", tmp_path / "XDG_CACHE_HOME/kprobes/kernels/6.12"
    shutil.copytree(source, target)
    described = (target / "kernel.json").read_text()
    (target / "kernel.json").write_text(re.sub(r'"/[^"]*/kernels/6\.12/', f'"{target}/', described))
    return target


def files_left(tmp_path: Path) -> list[str]:
    """Return what a refused command left where guests run, and half-made parts of its cache."""
    run = [str(path) for path in (tmp_path / "XDG_RUNTIME_DIR").rglob("*") if not path.is_dir()]
    cache = [str(path) for path in (tmp_path / "XDG_CACHE_HOME").rglob(".*")]
    return run + cache


@pytest.mark.usefixtures("newest")
def test_without_qemu_the_package_is_named(tmp_path):
    around = environment(tmp_path, PATH="")
    copy_kernel(tmp_path)
    refused(run_kprobes("trace", "--vm", "vfs_read", status=1, environment=around), "apt-get install qemu-system-x86")
    assert files_left(tmp_path) == []


def test_without_a_network_apts_own_words_are_shown(tmp_path):
    around = environment(tmp_path, http_proxy="http://127.0.0.1:9", https_proxy="http://127.0.0.1:9")
    around["APT_CONFIG"] = str(tmp_path / "apt.conf")
    (tmp_path / "apt.conf").write_text('Acquire::http::Proxy "http://127.0.0.1:9";\n')
    done = run_kprobes("trace", "--vm", "vfs_read", status=1, environment=around)
    refused(done, "apt says", "hint: ")
    assert files_left(tmp_path) == []


@pytest.mark.usefixtures("newest")
@pytest.mark.parametrize("size", [0, 20 << 20])
def test_a_damaged_kernel_in_the_cache_is_told_with_qemus_words(tmp_path, size):
    around = environment(tmp_path)
    kernel = copy_kernel(tmp_path)
    os.truncate(kernel / "boot", size)
    refused(run_kprobes("trace", "--vm", "vfs_read", status=1, environment=around), "the guest died while it booted")
    assert files_left(tmp_path) == []


def test_a_file_that_is_no_kernel_is_refused(tmp_path):
    image = tmp_path / "vmlinuz"
    image.write_bytes(b"MZ" + bytes(100_000))
    refused(run_kprobes("trace", f"--kernel={image}", "vfs_read", status=1), "not a bzImage")
    refused(run_kprobes("trace", "--kernel=/no/such/vmlinuz", "vfs_read", status=2), "/no/such/vmlinuz")
