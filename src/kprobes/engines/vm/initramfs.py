"""The guest's root file system: busybox, a small Python, the engines' modules, nothing of compiler or symbols.

/init                   not used: the kernel starts Python itself (rdinit=)
/bin/python3, /lib      the running Python's binary, libraries, and compiled modules
/bin/busybox            and a link for each of its applets
/lib/modules/channel    kernel modules, in the order of loading
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from kprobes.engines.vm.cpio import CpioWriter
from kprobes.engines.vm.interpreter import Interpreter, Module, loadable_part, module_closure, shared_libraries

if TYPE_CHECKING:
    from kprobes.engines.vm.recipe import Recipe
    from kprobes.engines.vm.userland import Userland

START = "/usr/lib/start.py"
START_TEXT = "from kprobes.engines.vm.guest.agent import main\nmain()\n"

ETC = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1 localhost kprobes\n",
    "etc/hostname": "kprobes\n",
}
EMPTY = ("proc", "sys", "dev", "tmp", "run", "root", "usr/bin", "usr/lib/modules/channel", "var/tmp")
LINKS = {
    "bin": "usr/bin",
    "sbin": "usr/bin",
    "usr/sbin": "bin",
    "lib": "usr/lib",
    "lib64": "usr/lib",
    "usr/lib64": "lib",
}


def build(recipe: Recipe) -> bytes:
    """Return the archive, an uncompressed cpio.

    Raises:
        TargetError: the running Python can't be copied.
    """
    stream = io.BytesIO()
    writer = CpioWriter(stream)
    for name in EMPTY:
        writer.directory(name)
    for name, target in {**LINKS, f"usr/lib/{recipe.kernel.arch}-linux-gnu": "."}.items():
        writer.symlink(name, target)
    writer.character_device("dev/console", 5, 1)
    writer.character_device("dev/null", 1, 3, 0o666)
    for name, text in ETC.items():
        writer.file(name, text.encode())
    modules = module_closure(recipe.interpreter, recipe.root, list(recipe.sources))
    if recipe.userland is None:
        _add_busybox(writer, recipe.busybox)
        _add_python(writer, recipe.interpreter, modules)
    else:
        # it makes its links itself, since it can't run here (`guest.system.set_up`)
        writer.file("usr/bin/busybox", recipe.busybox.read_bytes(), 0o755)
        _add_foreign_python(writer, recipe.userland, modules)
    writer.file(START, START_TEXT.encode())
    if recipe.kernel.modules:
        for module in sorted(Path(recipe.kernel.modules).iterdir()):
            writer.file(f"usr/lib/modules/channel/{module.name}", module.read_bytes())
    writer.close()
    return stream.getvalue()


def _add_busybox(writer: CpioWriter, busybox: Path) -> None:
    import subprocess

    writer.file("usr/bin/busybox", busybox.read_bytes(), 0o755)
    listed = subprocess.run([str(busybox), "--list"], capture_output=True, text=True, check=True)
    for applet in listed.stdout.split():
        if applet != "busybox":
            writer.symlink(f"usr/bin/{applet}", "busybox")


def _add_python(writer: CpioWriter, interpreter: Interpreter, modules: list[Module]) -> None:
    """Add binary, libraries and modules; modules compiled, without their sources, where Python looks for them."""
    binaries = [interpreter.executable]
    library = "usr/lib/" + interpreter.library.partition("/")[2]
    writer.directory(f"{library}/lib-dynload")
    # The file by which Python knows its library; most Pythons have `os` frozen in the binary as well.
    landmark = Module("os", str(interpreter.home / interpreter.library / "os.py"), is_package=False)
    for module in {landmark.name: landmark, **{module.name: module for module in modules}}.values():
        if module.origin.endswith(".so"):
            binaries.append(Path(module.origin))
            writer.file(f"{library}/lib-dynload/{Path(module.origin).name}", _stripped(Path(module.origin)), 0o755)
        elif module.origin.endswith(".py"):
            writer.file(f"{library}/{_place_of(module)}", compile_module(module))
    writer.directory(f"{library}/kprobes")
    writer.file("usr/bin/python3", _stripped(interpreter.executable), 0o755)
    for name, path in shared_libraries(binaries).items():
        writer.file(f"usr/lib/{Path(name).name}", _stripped(path), 0o755)


def _add_foreign_python(writer: CpioWriter, userland: Userland, modules: list[Module]) -> None:
    """Add the Python of another architecture; its modules compiled where this Python is of the same version."""
    library = f"usr/lib/{userland.python}"
    writer.directory(f"{library}/lib-dynload")
    found = [("os", userland.library / "os.py"), *userland.modules({module.name for module in modules})]
    ours = [module for module in modules if module.name.startswith("kprobes.")]
    theirs = [Module(name, str(path), path.name == "__init__.py") for name, path in dict(found).items()]
    binaries = [userland.executable]
    for module in (*theirs, *ours):
        path = Path(module.origin)
        if path.suffix == ".so":
            if userland.can_load(path):
                binaries.append(path)
                writer.file(f"{library}/lib-dynload/{path.name}", _stripped(path), 0o755)
        elif userland.is_ours:
            writer.file(f"{library}/{_place_of(module)}", compile_module(module))
        else:
            writer.file(f"{library}/{_place_of(module).removesuffix('c')}", path.read_bytes())
    writer.directory(f"{library}/kprobes")
    writer.file("usr/bin/python3", _stripped(userland.executable), 0o755)
    for name, path in userland.libraries(binaries).items():
        writer.file(f"usr/lib/{name}", _stripped(path), 0o755)


def compile_module(module: Module) -> bytes:
    """Return a module as a `.pyc` file that is taken as it is, without a source to compare with.

    Source: PEP 552 (flags 0, then two words that nobody reads where there is no source).
    """
    import marshal
    from importlib.util import MAGIC_NUMBER

    source = Path(module.origin).read_bytes()
    name = f"{module.name.replace('.', '/')}.py"
    return MAGIC_NUMBER + bytes(12) + marshal.dumps(compile(source, name, "exec", dont_inherit=True, optimize=2))


def _place_of(module: Module) -> str:
    return module.name.replace(".", "/") + ("/__init__.pyc" if module.is_package else ".pyc")


def _stripped(path: Path) -> bytes:
    return loadable_part(path.read_bytes())
