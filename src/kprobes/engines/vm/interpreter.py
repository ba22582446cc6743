"""A small Python for the guest, copied from the one that is running.

It is the binary, the shared libraries that it loads, and of its library only the modules that the guest's code imports.
"""

from __future__ import annotations

import os
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

from kprobes.errors import TargetError, UnsupportedError

# What the child prints: one line `name<TAB>origin<TAB>is_package` for each module after importing all that the guest's
# sources mention, also inside functions. The face of the package stays out: it would import the compiler.
CLOSURE = r"""
import ast, importlib, sys, types
root, files = sys.argv[1], sys.argv[2:]
face = types.ModuleType("kprobes")
face.__path__ = [root + "/kprobes"]
sys.modules["kprobes"] = face
sys.path.append(root)
def guarded(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            yield from (id(inner) for part in node.body for inner in ast.walk(part))
def names(file):
    tree = ast.parse(open(file, "rb").read())
    skipped = set(guarded(tree))
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (node.module + "." + alias.name for alias in node.names if node.module.startswith("kprobes"))
wanted = {"encodings.utf_8", "encodings.aliases", "encodings.ascii", "encodings.latin_1", "os"}
wanted.update("kprobes." + f[len(root) + 9:-3].replace("/", ".").removesuffix(".__init__") for f in files)
for file in files:
    wanted.update(names(file))
for name in sorted(wanted):
    try:
        importlib.import_module(name)
    except ImportError:
        pass
for name, module in list(sys.modules.items()):
    spec = getattr(module, "__spec__", None)
    origin = getattr(spec, "origin", None)
    if origin:
        print(name, origin, int(spec.submodule_search_locations is not None), sep="\t")
"""


@dataclass(frozen=True, slots=True)
class Module:
    """A module of the guest: Python source at *origin*, or an extension (*origin* ends in `.so`)."""

    name: str
    origin: str
    is_package: bool


@dataclass(frozen=True, slots=True)
class Interpreter:
    """The running Python: *executable* is the real file behind virtual environments and shims, *home* its prefix."""

    executable: Path
    home: Path
    library: str


def running_interpreter() -> Interpreter:
    """Return the interpreter that runs this, as it would be outside a virtual environment.

    Raises:
        TargetError: its files can't be found.
    """
    if os.uname().machine != "x86_64":
        raise UnsupportedError(f"the kernel in a box needs an x86-64 host, and this one is {os.uname().machine}")
    base = getattr(sys, "_base_executable", "") or sys.executable
    executable = Path(os.path.realpath(base or "/proc/self/exe"))
    if executable.name.startswith("python") and not _is_elf(executable):
        executable = Path(os.path.realpath("/proc/self/exe"))
    home = Path(sys.base_prefix)
    library = f"{sys.platlibdir}/python{sys.version_info.major}.{sys.version_info.minor}"
    if not (home / library / "os.py").is_file():
        library = "lib" + library[len(sys.platlibdir) :]
    if not (home / library / "os.py").is_file():
        raise TargetError(
            f"the library of the running Python is not at {home / library}",
            hint="run kprobes with a CPython that has its library as files",
        )
    return Interpreter(executable, home, library)


def module_closure(interpreter: Interpreter, root: Path, files: list[Path]) -> list[Module]:
    """Return every module that the sources *files* below *root* import, themselves included.

    A fresh isolated child of the same interpreter imports them and tells what it has.

    Raises:
        TargetError: the child failed.
    """
    import subprocess

    command = [str(interpreter.executable), "-I", "-S", "-B", "-c", CLOSURE, str(root), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TargetError(f"the modules of the guest can't be imported: {done.stderr.strip()[-500:]}")
    modules = []
    for line in done.stdout.splitlines():
        name, origin, package = line.split("\t")
        if origin.startswith("/") and Path(origin).exists():
            modules.append(Module(name, origin, package == "1"))
    return modules


def shared_libraries(files: list[Path]) -> dict[str, Path]:
    """Return the shared libraries that *files* need, by the name under which they are looked up.

    The loader itself is asked, since only it knows all of its search paths; a static file needs none.
    """
    import subprocess

    loader = _loader_of(files[0])
    if loader is None:
        return {}
    found: dict[str, Path] = {loader: Path(loader)}
    environment = {**os.environ, "LD_TRACE_LOADED_OBJECTS": "1"}
    for file in files:
        listed = subprocess.run([loader, str(file)], env=environment, capture_output=True, text=True, check=False)
        for line in listed.stdout.splitlines():
            name, arrow, rest = line.strip().partition(" => ")
            path = rest.rpartition(" (")[0]
            if arrow and path.startswith("/"):
                found.setdefault(name, Path(path))
    return found


def loadable_part(content: bytes) -> bytes:
    """Return an ELF file without what is never loaded (symbols, debug information), which stands behind the rest."""
    if len(content) < 64 or not content.startswith(b"\x7fELF\x02\x01"):
        return content
    table = struct.unpack_from("<Q", content, 32)[0]
    size, count = struct.unpack_from("<HH", content, 54)
    end = table + size * count
    for index in range(count):
        _, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", content, table + index * size)
        end = max(end, offset + length)
    if end > len(content):
        return content
    head = bytearray(content[:end])
    struct.pack_into("<Q", head, 40, 0)
    struct.pack_into("<HHH", head, 58, 0, 0, 0)
    return bytes(head)


def _is_elf(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(4) == b"\x7fELF"
    except OSError:
        return False


def _loader_of(path: Path) -> str | None:
    """Return the path of the program interpreter (PT_INTERP) of an ELF file, None for a static one."""
    content = path.read_bytes()
    table = struct.unpack_from("<Q", content, 32)[0]
    size, count = struct.unpack_from("<HH", content, 54)
    for index in range(count):
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", content, table + index * size)
        if kind == 3:
            return content[offset : offset + length].rstrip(b"\0").decode()
    return None
