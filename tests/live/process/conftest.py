"""Compiled programs for the live tests, and plans for their functions."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that compiles `programs/NAME` with the given flags, once, and returns the program's path."""
    directory = tmp_path_factory.mktemp("programs")

    def compile_program(name: str, *flags: str) -> Path:
        source = PROGRAMS / name
        key = hashlib.sha256(" ".join(flags).encode()).hexdigest()[:8]
        program = directory / f"{source.stem}-{key}"
        if not program.exists():
            compiler = "g++" if source.suffix == ".cc" else "gcc"
            given = flags if any(flag.startswith("-O") for flag in flags) else ("-O2", *flags)
            subprocess.run([compiler, "-g", "-pthread", "-o", program, source, *given], check=True)
        return program

    return compile_program
