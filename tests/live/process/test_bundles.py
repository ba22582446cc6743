"""A bundle for a process holds native code for the builds of its files, and runs without a compiler."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
RUNNER = Path(__file__).parents[1] / "bundle_runner.py"
PROGRAM = r"""
#include <stdio.h>
__attribute__((noipa)) int work(int n) { return n * EXTRA; }
int main(void) { int s = 0; for (int i = 0; i < 5; i++) s += work(i); return s < 0; }
"""
SCRIPT = """
from kprobes import Count, emit, i32, uretprobe

odd = Count("odd")


@uretprobe("mine:work")
def worked(n: i32) -> i32:
    ret = yield
    if n & 1:
        odd.add()
    emit(n, ret)


def show(event):
    print("seen", event.n, event.ret)


def report(session):
    print("odd", session[odd])
"""


def built(directory: Path, extra: int) -> Path:
    directory.mkdir()
    (directory / "mine.c").write_text(PROGRAM)
    program = directory / "mine"
    subprocess.run(
        ["gcc", "-O1", f"-DEXTRA={extra}", "-Wl,--build-id", "-o", program, directory / "mine.c"], check=True
    )
    return program


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a bundle, and the program it is for."""
    directory = tmp_path_factory.mktemp("native")
    program = built(directory / "one", 3)
    (directory / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "kprobes.cli.main", "export", "bundle", str(directory / "script.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run([*command, "-o", str(directory / "b.kpb"), "--", str(program)], check=True, env=environment)
    return directory / "b.kpb", program


def run_without_compiler(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `kprobes` with the one package that the process engine needs, and the compiler forbidden."""
    found = importlib.util.find_spec("iced_x86")
    assert found is not None
    assert found.origin is not None
    site = tmp_path / "site"
    site.mkdir(exist_ok=True)
    (site / "iced_x86").symlink_to(Path(found.origin).parent)
    command = [sys.executable, "-I", "-S", str(RUNNER), str(ROOT / "src"), str(site), "--", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_native_code_travels_without_its_compiler(tmp_path, bundle):
    path, program = bundle
    done = run_without_compiler(tmp_path, "run", str(path), "--", str(program))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [*(f"seen {n} {3 * n}" for n in range(5)), "odd 2"]


def test_a_copy_of_the_same_build_is_found_by_its_build_id(tmp_path, bundle):
    path, program = bundle
    copy = tmp_path / "other-name"
    copy.write_bytes(program.read_bytes())
    copy.chmod(0o755)
    program.rename(program.with_name("gone"))
    try:
        done = run_without_compiler(tmp_path, "run", str(path), "--", str(copy))
    finally:
        program.with_name("gone").rename(program)
    assert "odd 2" in done.stdout, done.stderr


def test_another_build_is_refused_by_name(tmp_path, bundle):
    path, program = bundle
    saved = program.read_bytes()
    other = built(tmp_path / "two", 4)
    try:
        program.write_bytes(other.read_bytes())
        done = run_without_compiler(tmp_path, "run", str(path), "--", str(program))
    finally:
        program.write_bytes(saved)
    assert done.returncode == 1
    assert f"this bundle is for another build of {program}" in done.stderr


def test_a_bundle_for_a_process_asks_for_one(tmp_path, bundle):
    done = run_without_compiler(tmp_path, "run", str(bundle[0]), "--duration", "1")
    assert done.returncode == 2
    assert "this bundle is for a process" in done.stderr
