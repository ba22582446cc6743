"""Integers, slots and the fault flag."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.compiler.ir import nodes as ir

if TYPE_CHECKING:
    from collections.abc import Callable

    from kprobes.compiler.ir.interpret.run import Run


def _const(run: Run, node: ir.Const) -> None:
    run.set(node.to, node.value)


def _binary(run: Run, node: ir.Binary) -> None:
    left, right, bits = run.get(node.left), run.get(node.right), node.to.type.bits
    if node.op in ("div", "mod") and right == 0:
        run.fault = True
        run.set(node.to, 0)
        return
    run.set(node.to, _OPERATORS[node.op](left, right, bits))


_OPERATORS: dict[str, Callable[[int, int, int], int]] = {
    "add": lambda left, right, _: left + right,
    "sub": lambda left, right, _: left - right,
    "mul": lambda left, right, _: left * right,
    "div": lambda left, right, _: left // right,
    "mod": lambda left, right, _: left % right,
    "and": lambda left, right, _: left & right,
    "or": lambda left, right, _: left | right,
    "xor": lambda left, right, _: left ^ right,
    "shl": lambda left, right, bits: left << right % bits,
    "shr": lambda left, right, bits: left >> right % bits,
}

_COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "eq": lambda left, right: left == right,
    "ne": lambda left, right: left != right,
    "lt": lambda left, right: left < right,
    "le": lambda left, right: left <= right,
    "gt": lambda left, right: left > right,
    "ge": lambda left, right: left >= right,
}


def _compare(run: Run, node: ir.Compare) -> None:
    run.set(node.to, _COMPARISONS[node.op](run.get(node.left), run.get(node.right)))


def _convert(run: Run, node: ir.Convert) -> None:
    number = run.get(node.source)
    run.set(node.to, number != 0 if node.to.type.bits == 1 else number)


def _read_slot(run: Run, node: ir.ReadSlot) -> None:
    run.set(node.to, run.numbers[node.slot])


def _write_slot(run: Run, node: ir.WriteSlot) -> None:
    run.numbers[node.slot] = run.get(node.source)


def _fault(run: Run, _: ir.Fault) -> None:
    run.fault = True


def _faulted(run: Run, node: ir.Faulted) -> None:
    run.set(node.to, run.fault)


NODES: dict[type, Callable[..., None]] = {
    ir.Const: _const,
    ir.Binary: _binary,
    ir.Compare: _compare,
    ir.Convert: _convert,
    ir.ReadSlot: _read_slot,
    ir.WriteSlot: _write_slot,
    ir.Fault: _fault,
    ir.Faulted: _faulted,
}
