"""The light import of llvmlite leaves the real modules to everybody else."""

import subprocess
import sys

CHECK = """
import sys
from kprobes.compiler.back.binding import Binding
assert "importlib.resources" not in sys.modules and "platform" not in sys.modules
with Binding().make_machine("bpfel", "v3").parse("define i64 @f() { ret i64 7 }") as module:
    assert module.emit(as_object=True)[:4] == b"\\x7fELF"
from llvmlite.binding import executionengine, ffi
assert executionengine.platform.machine() == __import__("platform").machine()
import importlib.resources
assert importlib.resources.files("kprobes").joinpath("py.typed").is_file()
assert ffi._impres.is_resource is importlib.resources.is_resource
"""


def test_stand_ins_are_gone_and_become_real_where_they_are_used():
    subprocess.run([sys.executable, "-c", CHECK], check=True)


def test_modules_that_are_loaded_already_stay():
    text = CHECK.replace('assert "importlib.resources" not in', 'assert "importlib.resources" in').replace(
        '"platform" not in', '"platform" in'
    )
    subprocess.run([sys.executable, "-c", "import importlib.resources, platform\n" + text], check=True)
