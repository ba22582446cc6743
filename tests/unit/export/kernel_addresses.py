"""Functions that handlers call, in a module of their own."""

from __future__ import annotations

from kprobes import now
from kprobes import var as word


def value():
    return word("jiffies")


def other():
    return now()
