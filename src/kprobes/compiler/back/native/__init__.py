"""The native back: IR to x86-64 code that the process engine puts into its target."""

from __future__ import annotations

from kprobes.compiler.back.native.program import lower_native
from kprobes.compiler.back.native.target import NativeTarget

__all__ = ["NativeTarget", "lower_native"]
