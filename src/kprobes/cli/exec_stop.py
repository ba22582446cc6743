"""A child that the kernel stops right after its exec: nothing of the program has run, and nothing of us runs any more.

Probes of files that are limited to the child's process are put in place then. Before its exec it is a copy of this
Python, whose own calls of malloc and others would be counted.

Source: ptrace(2).
"""

from __future__ import annotations

import ctypes
import os

_TRACEME, _CONT, _DETACH, _SETOPTIONS = 0, 7, 17, 0x4200
_SIGTRAP = 5
_EXITKILL = 1 << 20

_ptrace = ctypes.CDLL(None, use_errno=True).ptrace
_ptrace.restype = ctypes.c_long
_ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def ask_to_be_stopped() -> bool:
    """In the child: have its exec stop it; return whether that is permitted."""
    return bool(_ptrace(_TRACEME, 0, None, None) == 0)


def run_to_exec(pid: int) -> int | None:
    """Let the child run to its exec, from the thread that forked it; return its wait status if it ended instead.

    From then on the child dies with this process, until it is let go.
    """
    while True:
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            return status
        if os.WSTOPSIG(status) == _SIGTRAP:
            _ptrace(_SETOPTIONS, pid, None, _EXITKILL)
            return None
        _ptrace(_CONT, pid, None, os.WSTOPSIG(status))


def let_go(pid: int) -> None:
    """Let the stopped child run, no longer traced."""
    _ptrace(_DETACH, pid, None, None)
