"""How much of a kernel's verifier a loop takes, as an estimate on the IR.

A verifier walks every turn of a loop. It keeps each branch whose outcome it doesn't know for later, of all turns at
once, and gives up beyond 8192 of them, or after a million instructions. So how often a loop may turn depends on its
body.

Source: kernel/bpf/verifier.c (BPF_COMPLEXITY_LIMIT_JMP_SEQ, BPF_COMPLEXITY_LIMIT_INSNS), Linux 5.10 to 7.2.
"""

from __future__ import annotations

from kprobes.compiler.ir import nodes as ir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.compiler.front.build import OpenBlock

# Less than what the kernel allows: LLVM may make several branches of one, and several paths may lead to a loop.
_BRANCHES, _NODES = 6000, 200_000
_OUTER_TURNS = 16
_WORD = 8

# Branches that a node becomes. One that tests a truth value goes with the node that made it.
_COSTS = {
    ir.Compare: 1, ir.Emit: 2, ir.MapAdd: 2, ir.MapSample: 8, ir.MapRead: 1, ir.MapWrite: 1, ir.MapBump: 2,
    ir.MapDelete: 1,
}  # fmt: skip


def _cost(node: ir.Node) -> int:
    if isinstance(node, ir.Binary):
        return 4 if node.op in ("div", "mod") else 0
    if isinstance(node, ir.CompareText):
        return 1 + len(node.text) // _WORD
    if isinstance(node, ir.CompareTexts):
        return 1 + min(node.left.size, node.right.size) // _WORD
    if isinstance(node, ir.Load | ir.ReadText):
        return node.space == "any"
    return _COSTS.get(type(node), 0)


class Weights:
    """What the loops closed so far take: (first block, block behind the last, branches, nodes) of all their turns."""

    def __init__(self) -> None:
        self._closed: list[tuple[int, int, int, int]] = []

    def turns(self, blocks: Sequence[OpenBlock], first: int, most: int, outer: int) -> int:
        """Return how often a loop may turn, at most *most*; its blocks so far are those from *first* on.

        It gets half of what the loops before it left, so that there is something left for those to come; within a loop,
        of up to *outer* turns, it leaves that one some turns as well.
        """
        branches, nodes = self._sum(blocks, first)
        before = [sum(loop[kind] for loop in self._closed if loop[1] <= first) for kind in (2, 3)]
        share = 2 * min(outer, _OUTER_TURNS)
        by_branches = max(_BRANCHES - before[0], 0) // share // max(branches - 1, 1)  # the count is known each turn
        return max(1, min(most, by_branches, max(_NODES - before[1], 0) // share // max(nodes, 1)))

    def close(self, blocks: Sequence[OpenBlock], first: int, turns: int) -> None:
        """Note a loop of at most *turns* turns."""
        branches, nodes = self._sum(blocks, first)
        self._closed = [loop for loop in self._closed if loop[0] < first]
        self._closed.append((first, len(blocks), (branches - 1) * turns, nodes * turns))

    def _sum(self, blocks: Sequence[OpenBlock], first: int) -> tuple[int, int]:
        branches = nodes = 0
        inner = iter([loop for loop in self._closed if loop[0] >= first])
        at = first
        while at < len(blocks):
            loop = next(inner, (len(blocks), len(blocks), 0, 0))
            for block in blocks[at : loop[0]]:
                branches += sum(map(_cost, block.nodes))
                nodes += len(block.nodes)
            branches, nodes, at = branches + loop[2], nodes + loop[3], loop[1]
        return branches, nodes
