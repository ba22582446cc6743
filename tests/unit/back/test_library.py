"""LLVM by its library makes what llvmlite's own Python makes of it, and is called as that calls it."""

import ctypes
import subprocess
import sys

import pytest
from llvmlite.binding import ffi

from kprobes.compiler.back import binding, library, llvm
from kprobes.errors import InternalError

SUM = """
define i64 @f(ptr %values, i64 %count) {
start:
  br label %loop
loop:
  %i = phi i64 [ 0, %start ], [ %next, %loop ]
  %sum = phi i64 [ 0, %start ], [ %more, %loop ]
  %at = getelementptr i64, ptr %values, i64 %i
  %value = load i64, ptr %at
  %more = add i64 %sum, %value
  %next = add i64 %i, 1
  %again = icmp ult i64 %next, %count
  br i1 %again, label %loop, label %done
done:
  ret i64 %more
}
"""
KINDS = {"bpf": (llvm.BPF_TRIPLE, "v3"), "native": (llvm.NATIVE_TRIPLE, "x86-64")}
# a process of its own: LLVM takes an option once
OTHER_WAY = """
import sys
from kprobes.compiler.back import library, llvm
library.RELEASES = ("0.0.",)
triple, cpu, text = sys.argv[1:]
sys.stdout.buffer.write(llvm.compile_object(text, triple, cpu))
assert "llvmlite.binding" in sys.modules
"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_release_that_is_not_known_makes_the_same_through_llvmlites_own_python(kind):
    command = [sys.executable, "-c", OTHER_WAY, *KINDS[kind], SUM]
    other = subprocess.run(command, check=True, capture_output=True).stdout
    assert llvm.compile_object(SUM, *KINDS[kind]) == other
    assert other[:4] == b"\x7fELF"


def is_pointer(kind):
    return kind is ctypes.c_void_p or issubclass(kind, ctypes._Pointer)


def test_calls_are_declared_as_llvmlite_declares_them():
    assert binding.llvm  # its modules declare
    for name, (result, parameters) in library.CALLS.items():
        theirs = getattr(ffi.lib, f"LLVMPY_{name}")
        if theirs.argtypes is None:  # it declares nothing of what takes nothing, nor of what frees a text
            assert not parameters or name == "DisposeString"
            continue
        pairs = list(zip(parameters, theirs.argtypes, strict=True))
        if result is not None:
            pairs.append((result, theirs.restype))
        for ours, other in pairs:
            assert ours is other or (ours is ctypes.c_void_p and is_pointer(other)), (name, ours, other)


def test_the_installed_release_is_called_directly():
    assert library.find_library().endswith("libllvmlite.so")


def test_what_llvm_refuses_is_an_error_of_ours_and_says_what():
    with pytest.raises(InternalError, match="undefined value '%nobody'"):
        llvm.compile_object("define i64 @f() { ret i64 %nobody }", *KINDS["bpf"])


def test_optimised_text_is_that_of_the_passes():
    text = llvm.optimised_text("define i64 @f() { %a = add i64 3, 4 ret i64 %a }", *KINDS["bpf"])
    assert "ret i64 7" in text


def test_an_interpreter_may_end_while_llvm_is_loaded():
    code = "from kprobes.compiler.back.llvm import prepare\nprepare()\nprint('gone')"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("gone\n", "")


def test_who_compiles_waits_for_what_is_being_loaded():
    code = (
        "from kprobes.compiler.back.llvm import prepare, compile_native\nprepare(native=True)\n"
        "print(compile_native('define i64 @f() { ret i64 7 }')[1:4])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("b'ELF'\n", "")
