"""The interpreter of the IR. This file only hands names on."""

from __future__ import annotations

from kprobes.compiler.ir.interpret.interpreter import Counters, Interpreter

__all__ = ["Counters", "Interpreter"]
