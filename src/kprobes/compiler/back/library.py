"""The library inside llvmlite, called without llvmlite's Python around it.

`import llvmlite.binding` makes a class for everything LLVM can do: 30 ms, of which a command that compiles one handler
uses a twentieth. Here stand the calls we make; reading the library itself takes 10 ms, without the interpreter's lock.

The calls are llvmlite's own business and may change with a release, so this module serves the releases it was checked
with (a test compares each declaration with llvmlite's own); `binding` serves all others.
"""

from __future__ import annotations

import os
from ctypes import CDLL, POINTER, byref, c_bool, c_char_p, c_int, c_size_t, c_void_p, string_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

RELEASES = ("0.50.",)
_FILE = "binding/libllvmlite.so"
_SPEED = 2
_TEXT = POINTER(c_char_p)  # where a call leaves a text that DisposeString frees
# name -> (result, parameters)
CALLS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "InitializeAllTargetInfos": (None, ()),
    "InitializeAllTargets": (None, ()),
    "InitializeAllTargetMCs": (None, ()),
    "InitializeAllAsmPrinters": (None, ()),
    "InitializeNativeAsmParser": (None, ()),
    "SetCommandLine": (None, (c_char_p, c_char_p)),
    "GetGlobalContext": (c_void_p, ()),
    "GetTargetFromTriple": (c_void_p, (c_char_p, _TEXT)),
    "CreateTargetMachine": (
        c_void_p,
        (c_void_p, c_char_p, c_char_p, c_char_p, c_int, c_char_p, c_char_p, c_int, c_int, c_char_p),
    ),
    "ParseAssembly": (c_void_p, (c_void_p, c_char_p, _TEXT)),
    "VerifyModule": (c_bool, (c_void_p, _TEXT)),
    "PrintModuleToString": (None, (c_void_p, _TEXT)),
    "DisposeModule": (None, (c_void_p,)),
    "CreatePipelineTuningOptions": (c_void_p, ()),
    "DisposePipelineTuningOptions": (None, (c_void_p,)),
    "CreatePassBuilder": (c_void_p, (c_void_p, c_void_p)),
    "DisposePassBuilder": (None, (c_void_p,)),
    "buildPerModuleDefaultPipeline": (c_void_p, (c_void_p, c_int)),
    "RunNewModulePassManager": (None, (c_void_p, c_void_p, c_void_p)),
    "DisposeNewModulePassManger": (None, (c_void_p,)),
    "TargetMachineEmitToMemory": (c_void_p, (c_void_p, c_void_p, c_int, _TEXT)),
    "GetBufferStart": (c_void_p, (c_void_p,)),
    "GetBufferSize": (c_size_t, (c_void_p,)),
    "DisposeMemoryBuffer": (None, (c_void_p,)),
    "DisposeString": (None, (c_char_p,)),
}


def find_library() -> str:
    """Return the path of llvmlite's library; empty where it lies elsewhere, or is of a release not known here."""
    import llvmlite

    path = f"{llvmlite.__path__[0]}/{_FILE}"
    return path if llvmlite.__version__.startswith(RELEASES) and os.access(path, os.R_OK) else ""


class Library:
    """LLVM by its library at *path*, which stays loaded."""

    def __init__(self, path: str) -> None:
        self._library = CDLL(path)
        self._calls: dict[str, Callable[..., Any]] = {}
        for family in ("TargetInfos", "Targets", "TargetMCs", "AsmPrinters"):
            self.call(f"InitializeAll{family}")
        self.call("InitializeNativeAsmParser")

    def set_option(self, option: str) -> None:
        """Set an option of LLVM's command line, for all machines."""
        self.call("SetCommandLine", b"kprobes", option.encode())

    def call(self, name: str, *values: object) -> Any:
        """Call LLVMPY_*name*."""
        if name not in self._calls:
            function = self._library[f"LLVMPY_{name}"]
            function.restype, function.argtypes = CALLS[name]
            self._calls[name] = function
        return self._calls[name](*values)

    def ask(self, name: str, *values: object) -> tuple[Any, str]:
        """Return what LLVMPY_*name* returns, and the text that it leaves."""
        out = c_char_p()
        found = self.call(name, *values, byref(out))
        text = out.value
        if text is None:
            return found, ""
        self.call("DisposeString", out)
        return found, text.decode()

    def make_machine(
        self, triple: str, cpu: str, features: str = "", reloc: str = "default", codemodel: str = "jitdefault"
    ) -> Machine:
        """Return what makes code for *triple* and *cpu*.

        Raises:
            RuntimeError: LLVM knows no such machine.
        """
        target, said = self.ask("GetTargetFromTriple", triple.encode())
        texts = [text.encode() for text in (triple, cpu, features, reloc, codemodel)]
        machine = target and self.call("CreateTargetMachine", target, *texts[:3], _SPEED, *texts[3:], 0, 0, b"")
        if not machine:
            raise RuntimeError(said or f"no machine {triple} {cpu}")
        return Machine(self, machine)


class Machine:
    """Makes code for one kind of processor; it lives as long as this process."""

    def __init__(self, library: Library, handle: int) -> None:
        self.library = library
        self.handle = handle

    def parse(self, text: str) -> Module:
        """Return the module of the assembly *text*.

        Raises:
            RuntimeError: LLVM refuses the text.
        """
        found, said = self.library.ask("ParseAssembly", self.library.call("GetGlobalContext"), text.encode())
        if not found:
            raise RuntimeError(said)
        return Module(self, found)


class Module:
    """A module of LLVM; a context manager."""

    def __init__(self, machine: Machine, handle: int) -> None:
        self._machine = machine
        self._library = machine.library
        self._handle = handle

    def __enter__(self) -> Module:
        return self

    def __exit__(self, *_: object) -> None:
        self._library.call("DisposeModule", self._handle)

    def __str__(self) -> str:
        return self._library.ask("PrintModuleToString", self._handle)[1]

    def optimise(self) -> None:
        """Run the passes of -O2 over it.

        Raises:
            RuntimeError: it is not well formed.
        """
        is_broken, said = self._library.ask("VerifyModule", self._handle)
        if is_broken:
            raise RuntimeError(said)
        call = self._library.call
        options = call("CreatePipelineTuningOptions")
        builder = call("CreatePassBuilder", self._machine.handle, options)
        passes = call("buildPerModuleDefaultPipeline", builder, _SPEED)
        call("RunNewModulePassManager", passes, self._handle, builder)
        call("DisposeNewModulePassManger", passes)
        call("DisposePassBuilder", builder)
        call("DisposePipelineTuningOptions", options)

    def emit(self, *, as_object: bool) -> bytes:
        """Return the object file, or the processor's assembly; that changes the module.

        Raises:
            RuntimeError: LLVM can't.
        """
        call = self._library.call
        buffer, said = self._library.ask(
            "TargetMachineEmitToMemory", self._machine.handle, self._handle, int(as_object)
        )
        if not buffer:
            raise RuntimeError(said)
        content = string_at(call("GetBufferStart", buffer), call("GetBufferSize", buffer))
        call("DisposeMemoryBuffer", buffer)
        return content
