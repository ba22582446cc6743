"""A bundle of a script runs in the kernels it is for, without a compiler, and says what it is for elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from guest_harness import ROOT, TIMEOUT_S, Done, Guest, run_kprobes

from kprobes.export.bundlefile import bundle_from_bytes, bundle_to_bytes
from kprobes.frozen import replace

RUNNER = Path(__file__).parents[1] / "bundle_runner.py"
SCRIPT = """
from kprobes import Count, Setting, comm, emit, kretprobe

least = Setting("least", 0)
sizes = Count("sizes", by=int)


def wanted(count):
    return comm() == "calls" and count > least


@kretprobe("vfs_write")
def wrote(count):
    ret = yield
    if wanted(count):
        sizes.add(by=count)
        emit(count, ret)


def report(session):
    print("sizes", *session[sizes], *session[sizes].values(), [one.hits >= 3 for one in session.stats])
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, guest_of) -> Path:
    """Return a bundle for two kernels."""
    directory = tmp_path_factory.mktemp("bundle")
    for kernel in ("6.1", "6.12"):
        guest_of(kernel)
    (directory / "script.py").write_text(SCRIPT)
    words = ["--for", "6.1", "--for", "6.12", "--set", "least=5", "-o", str(directory / "b.kpb")]
    run_kprobes("export", "bundle", str(directory / "script.py"), *words)
    (directory / "script.py").unlink()
    return directory / "b.kpb"


def run_without_compiler(*words: str, status: int = 0) -> Done:
    """Run `kprobes` with nothing installed and the compiler forbidden."""
    command = [sys.executable, "-I", "-S", str(RUNNER), str(ROOT / "src"), "--", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env=dict(os.environ))
    assert done.returncode == status, done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
def test_a_bundle_counts_and_reports_without_a_compiler(guest_of, bundle, programs, kernel):
    guest_of(kernel)
    own = ["--copy", str(programs / "calls"), "--", "/root/calls", "write", "7", "3"]
    words = ["run", str(bundle), f"--vm={kernel}", *own]
    done = run_without_compiler(*words)
    assert "sizes 7 3 [True]" in done.output + done.errors
    done = run_without_compiler(*words[:3], "--format", "json", *words[3:])
    told = [json.loads(line) for line in (done.output + done.errors).splitlines() if line.startswith("{")]
    assert [(one["count"], one["ret"]) for one in told if one.get("event") == "wrote"] == [(7, 7)] * 3


def test_another_kernel_is_told_what_the_bundle_is_for(guest_of, bundle):
    guest_of("7.2")
    done = run_without_compiler("run", str(bundle), "--vm=7.2", "--duration", "1", status=1)
    assert "this bundle is for the kernel 6.1.0" in done.errors
    assert "--for" in done.errors


def test_what_is_compiled_in_can_not_be_set(bundle):
    done = run_without_compiler("run", str(bundle), "--vm=6.12", "--set", "least=1", status=2)
    assert "compiled already" in done.errors
    assert run_without_compiler("run", str(bundle), "--settings").output == "least  5, compiled in\n"


ADDRESSES = """
from kprobes import emit, kprobe, var


@kprobe("__x64_sys_getppid")
def asked():
    emit(n=var("nr_threads"))
"""


def test_code_that_holds_addresses_goes_only_where_the_kernel_lies_as_it_did(guest_of, tmp_path):
    newest: Guest = guest_of("6.12")
    (tmp_path / "v.py").write_text(ADDRESSES)
    path = tmp_path / "v.kpb"
    newest.command("export", "bundle", str(tmp_path / "v.py"), "-o", str(path))
    words = ["run", str(path), "--vm=6.12", "--format", "json", "--", "sh", "-c", "true"]
    assert '"event":"asked"' in run_without_compiler(*words).errors
    made = bundle_from_bytes(path.read_bytes())
    elsewhere = tuple(replace(one, text=one.text + 0x200000) for one in made.targets)
    path.write_bytes(bundle_to_bytes(replace(made, targets=elsewhere)))
    assert "holds addresses of the kernel" in run_without_compiler(*words, status=1).errors
