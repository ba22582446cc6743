"""BCC's Python as Debian has it, here and in a guest: what `programs/bcc_events.py` needs to run."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench.lab import PROGRAMS, Lab
from kprobes.engines.vm.interpreter import shared_libraries

if TYPE_CHECKING:
    from bench.guests import Guest

SCRIPT = PROGRAMS / "bcc_events.py"
PACKAGES = Path("/usr/lib/python3/dist-packages")
LIBRARY = Path("/usr/lib/x86_64-linux-gnu/libbcc.so.0")
OPENED = {path.name: path for path in (LIBRARY, LIBRARY.with_name("librt.so.1"))}
IN_GUEST = {"PYTHONPATH": "/root/bcc", "BCC_KERNEL_SOURCE": "/root/headers", "LD_LIBRARY_PATH": "/usr/lib:/root/lib"}

# BCC includes headers of the kernel into every program. Ours reads no structure of the kernel: this much is enough.
TYPES = {
    "unsigned char": "__u8, u8",
    "unsigned short": "__u16, u16, __be16, __sum16",
    "unsigned int": "__u32, u32, __be32, __wsum",
    "unsigned long long": "__u64, u64, __be64",
    "signed char": "__s8, s8",
    "short": "__s16, s16",
    "int": "__s32, s32",
    "long long": "__s64, s64",
    "unsigned long": "size_t, uintptr_t",
    "_Bool": "bool",
}
HEADERS = {
    "linux/kconfig.h": "#define CONFIG_BPF_SYSCALL 1\n",
    "linux/version.h": "#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))\n"
    "#define LINUX_VERSION_CODE KERNEL_VERSION(6, 12, 0)\n",
    "linux/types.h": "#pragma once\n"
    + "".join(f"typedef {kind} {names};\n" for kind, names in TYPES.items())
    + "#define __aligned_u64 __u64 __attribute__((aligned(8)))\n",
    "linux/log2.h": "",
    "uapi/linux/bpf.h": "",
    "uapi/linux/if_packet.h": "",
    "uapi/linux/ptrace.h": "",
    "asm/page.h": "#define PAGE_SIZE 4096\n",
}
COMMON_HEADER = Path("/usr/include/linux/bpf_common.h")  # of libc6-dev, which is in every machine that compiles
FILES_OF_BCC = """
import sys
sys.path.append(sys.argv[1])
import bcc, encodings.ascii, subprocess
for name, module in list(sys.modules.items()):
    place = getattr(module, "__file__", None)
    if place and name != "__main__":
        print(name, place, int(hasattr(module, "__path__")))
"""


def has_bcc() -> bool:
    """Return whether BCC's Python is installed."""
    return (PACKAGES / "bcc").exists() and LIBRARY.exists()


def write_headers(lab: Lab) -> Path:
    """Return a directory that BCC takes for the kernel's source (BCC_KERNEL_SOURCE)."""
    root = lab.directory / "headers"
    texts = {**HEADERS, "linux/bpf_common.h": COMMON_HEADER.read_text("utf-8")}
    for name, text in texts.items():
        path = root / "include" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def bring_bcc(lab: Lab, guest: Guest) -> None:
    """Put BCC, the modules of Python that it imports, and the script into *guest*."""
    archive = lab.directory / "bcc.tar"
    with tarfile.open(archive, "w") as made:
        made.add(write_headers(lab), "headers")
        words = [sys.executable, "-I", "-S", "-c", FILES_OF_BCC, str(PACKAGES)]
        listed = subprocess.run(words, check=True, capture_output=True, text=True)
        for line in listed.stdout.splitlines():
            name, place, package = line.split()
            target = name.replace(".", "/") + ("/__init__" if package == "1" else "")
            suffix = Path(place).name.partition(".")[2]
            made.add(Path(place).resolve(), f"bcc/{target}.{suffix}")
    python = Path(sys.executable)
    there = shared_libraries([python])
    needed = {name: path for name, path in shared_libraries([python, LIBRARY]).items() if name not in there}
    # in a place of their own: /usr/lib has what the guest's own Python runs on
    libraries = [f"{path}:/root/lib/{name}" for name, path in {**needed, **OPENED}.items()]
    copied = [str(archive), str(SCRIPT), *libraries]
    guest.run(["tar", "-C", "/root", "-xf", "/root/bcc.tar"], copy=copied)
