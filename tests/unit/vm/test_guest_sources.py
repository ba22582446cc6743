"""What a guest gets: engines and model, nothing that compiles or looks up symbols."""

import subprocess
import sys
from pathlib import Path

import pytest

from kprobes.engines.vm import initramfs, recipe
from kprobes.engines.vm.interpreter import loadable_part, module_closure, running_interpreter, shared_libraries

ROOT = Path(initramfs.__file__).parents[3]


@pytest.fixture(scope="module")
def closure():
    return module_closure(running_interpreter(), ROOT, recipe.guest_sources(ROOT))


def test_the_guest_has_its_agent_and_the_kernel_engine(closure):
    names = {module.name for module in closure}
    assert {"kprobes.engines.vm.guest.agent", "kprobes.engines.kernel.engine", "kprobes.model.wire"} <= names


def test_the_guest_has_no_compiler_no_symbols_and_no_face(closure):
    names = {module.name for module in closure}
    banned = ("kprobes.compiler", "kprobes.symbols", "kprobes.planner", "kprobes.engines.process", "kprobes.cli")
    assert not [name for name in names if name.startswith(banned)]
    assert "kprobes" not in names
    assert not names & {"llvmlite", "rich", "pyarrow", "iced_x86", "subprocess", "asyncio", "site"}


def test_the_guest_imports_nothing_heavy(closure):
    assert "pathlib" not in {module.name for module in closure}


def test_modules_compile_and_run_without_their_sources(tmp_path, closure):
    module = next(module for module in closure if module.name == "kprobes.errors")
    (tmp_path / "errors.pyc").write_bytes(initramfs.compile_module(module))
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import errors; print(errors.UsageError('x'))"
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "x\n"


def test_the_interpreter_is_a_real_binary_outside_of_any_virtual_environment():
    interpreter = running_interpreter()
    assert interpreter.executable.read_bytes()[:4] == b"\x7fELF"
    assert (interpreter.home / interpreter.library / "os.py").exists()
    assert str(interpreter.home) == sys.base_prefix


def test_shared_libraries_are_found_and_a_static_program_has_none():
    assert "libc.so.6" in shared_libraries([running_interpreter().executable])
    assert shared_libraries([recipe.find_busybox()]) == {}


def test_a_stripped_program_still_runs(tmp_path):
    source = running_interpreter().executable.read_bytes()
    program = tmp_path / "python"
    program.write_bytes(loadable_part(source))
    program.chmod(0o755)
    done = subprocess.run([program, "-c", "print(6 * 7)"], capture_output=True, text=True, check=True)
    assert done.stdout == "42\n"
    assert len(loadable_part(source)) <= len(source)


def test_what_is_no_elf_file_is_left_alone():
    assert loadable_part(b"#!/bin/sh\n") == b"#!/bin/sh\n"
