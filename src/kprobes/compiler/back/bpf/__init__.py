"""IR -> BPF programs."""

from __future__ import annotations

from kprobes.compiler.back.bpf.program import lower, lower_to_text
from kprobes.compiler.back.bpf.target import BpfTarget, Lowered

__all__ = ["BpfTarget", "Lowered", "lower", "lower_to_text"]
