"""Runs `kprobes` as where there is no compiler: what is called like one can't be imported, wherever it lies.

    python -I -S bundle_runner.py DIRECTORY... -- WORDS

With -S there are no installed packages; the directories are all that is imported from besides Python's own.
"""

from __future__ import annotations

import sys

FORBIDDEN = (
    "llvmlite",
    "kprobes.compiler.front",
    "kprobes.compiler.back",
    "kprobes.symbols.dwarf",
    "kprobes.symbols.btf",
)


class Forbid:
    """Refuses to import the compiler."""

    def find_spec(self, name, path=None, target=None):
        if name.startswith(FORBIDDEN):
            raise ImportError(f"{name} is forbidden here")


at = sys.argv.index("--")
sys.path[:0] = sys.argv[1:at]
sys.meta_path.insert(0, Forbid())
from kprobes.cli.main import main  # noqa: E402

sys.exit(main(sys.argv[at + 1 :]))
