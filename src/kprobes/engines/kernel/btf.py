"""Descriptors of the kernel's own type information: fentry programs of a module's functions name it by one."""

from __future__ import annotations

import os

from kprobes.engines.kernel import syscall
from kprobes.errors import UnsupportedError


class KernelBtf:
    """Opens the BTF of modules on demand; a resource."""

    def __init__(self) -> None:
        self._modules: dict[str, int] | None = None

    def module(self, name: str) -> int:
        """Return the descriptor of the BTF of module *name*, 0 for vmlinux (the empty name).

        Raises:
            UnsupportedError: the module is not loaded or has no BTF.
        """
        if not name:
            return 0
        if self._modules is None or name not in self._modules:
            self.close()
            self._modules = _open_modules()
        if name not in self._modules:
            raise UnsupportedError(
                f"there is no type information for the module {name}",
                hint="is it loaded? Without BTF a kprobe still works, an fentry does not",
            )
        return self._modules[name]

    def close(self) -> None:
        """Close all; idempotent."""
        for fd in (self._modules or {}).values():
            os.close(fd)
        self._modules = None


def _open_modules() -> dict[str, int]:
    """Return module name -> descriptor for all BTF objects of the kernel other than vmlinux."""
    found: dict[str, int] = {}
    number = syscall.btf_next_id(0)
    while number is not None:
        fd = syscall.btf_open(number)
        if fd is not None:
            name, is_kernel = syscall.btf_name(fd)
            if is_kernel and name != "vmlinux" and name not in found:
                found[name] = fd
            else:
                os.close(fd)
        number = syscall.btf_next_id(number)
    return found
