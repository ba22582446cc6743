"""The control flow graph of a function: dominators, back edges, what reaches a block. Sets are bits of integers."""

from __future__ import annotations

from kprobes.compiler.ir.operands import successors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.compiler.ir.nodes import Block, Function


class Graph:
    """The blocks of *function* that can be reached, in reverse postorder (`blocks`)."""

    def __init__(self, function: Function) -> None:
        by_label = {block.label: block for block in function.blocks}
        self._next = {label: tuple(by_label[to] for to in successors(block)) for label, block in by_label.items()}
        self._backward: list[tuple[Block, Block]] = []
        self.blocks = self._walk(function.blocks[0])
        self._index = {block.label: index for index, block in enumerate(self.blocks)}
        self._before: list[list[int]] = [[] for _ in self.blocks]
        for index, block in enumerate(self.blocks):
            for following in self._next[block.label]:
                self._before[self._index[following.label]].append(index)
        self._dominators = self.reaching([1 << index for index in range(len(self.blocks))])

    def _walk(self, first: Block) -> list[Block]:
        """Walk depth first, noting the edges that go back to a block still open; return reverse postorder."""
        order: list[Block] = []
        is_open = {first.label: True}
        path = [(first, iter(self._next[first.label]))]
        while path:
            block, rest = path[-1]
            following = next(rest, None)
            if following is None:
                path.pop()
                is_open[block.label] = False
                order.append(block)
            elif following.label not in is_open:
                is_open[following.label] = True
                path.append((following, iter(self._next[following.label])))
            elif is_open[following.label]:
                self._backward.append((block, following))
        return order[::-1]

    def back_edges(self) -> list[tuple[Block, Block]]:
        """Return the (from, to) of every edge that closes a cycle."""
        return self._backward

    def dominates(self, one: Block, other: Block) -> bool:
        """Return whether every way to *other* leads through *one*."""
        if one is other:
            return True
        return bool(self._dominators[self._index[other.label]] >> self._index[one.label] & 1)

    def reaching(self, made: Sequence[int]) -> list[int]:
        """Return for each block what was made on all ways to its beginning; *made* is what each block adds."""
        everything = 0
        for bits in made:
            everything |= bits
        before = [everything] * len(self.blocks)
        before[0] = 0
        changed = True
        while changed:
            changed = False
            for index in range(1, len(self.blocks)):
                known = everything
                for predecessor in self._before[index]:
                    known &= before[predecessor] | made[predecessor]
                if known != before[index]:
                    before[index], changed = known, True
        return before
