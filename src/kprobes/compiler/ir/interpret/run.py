"""One part of a handler on one hit: its values, its slots, the fault flag."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.compiler.ir import nodes as ir
from kprobes.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kprobes.compiler.ir.interpret.interpreter import Interpreter
    from kprobes.compiler.ir.world import Frame
    from kprobes.model.layout import Field, MapLayout


_STEPS = 10_000_000  # far beyond what the kernel's verifier lets through
_WORD = (1 << 64) - 1


def wrap(value: int, kind: ir.IntType) -> int:
    """Return *value* wrapped to *kind*."""
    value &= (1 << kind.bits) - 1
    return value - (1 << kind.bits) if kind.signed and value >> (kind.bits - 1) else value


class Run:
    """One part on one hit: its values, its slots, the fault flag."""

    def __init__(self, interpreter: Interpreter, function: ir.Function, frame: Frame) -> None:
        self.host = interpreter
        self.function = function
        self.frame = frame
        self.fault = False
        self.values: dict[int, int] = {}
        self.numbers = {slot: 0 for slot in function.slots if slot.type is not None}
        self.buffers = {slot: bytes(slot.size) for slot in function.slots if slot.type is None}
        self._ended = False

    def walk(self, nodes: Mapping[type, Callable[..., None]]) -> bool:
        """Run to the end, each node by its entry in *nodes*; return whether that was without SaveCall."""
        blocks = {block.label: block for block in self.function.blocks}
        block, steps = self.function.blocks[0], 0
        while True:
            for node in block.nodes:
                nodes[type(node)](self, node)
                if self._ended:
                    return False
            steps += len(block.nodes) + 1
            if steps > _STEPS:
                raise InternalError(f"{self.host.handler.name} does not end")
            end = block.end
            if isinstance(end, ir.Return):
                return not any(isinstance(node, ir.SaveCall) for node in block.nodes)
            if isinstance(end, ir.Branch):
                block = blocks[end.yes if self.values[end.condition.number] else end.no]
            else:
                block = blocks[end.target]

    def end(self) -> None:
        """Leave the handler at this node."""
        self._ended = True

    def get(self, value: ir.Value) -> int:
        """Return what *value* is."""
        return self.values[value.number]

    def set(self, value: ir.Value, number: int) -> None:
        """Let *value* be *number*, wrapped to its type."""
        self.values[value.number] = wrap(number, value.type)

    def fill(self, slot: ir.Slot, content: bytes) -> None:
        """Put a string into a buffer: cut to its size with the NUL, zeros behind."""
        self.buffers[slot] = _as_string(content, slot.size)

    def read(self, space: str, address: int, size: int) -> bytes | None:
        """Read memory at the address that *address* is modulo 2**64."""
        address &= _WORD
        if space == "any":
            space = "kernel" if address >> 63 else "user"
        return self.host.world.read_memory(space, address, size)

    def pack(self, fields: Sequence[Field], operands: Sequence[ir.Operand], size: int) -> bytes:
        """Lay *operands* out as *fields* in *size* bytes."""
        record = bytearray(size)
        for field, operand in zip(fields, operands, strict=True):
            if isinstance(operand, ir.Slot):
                content = _as_string(self.buffers[operand], field.size)
            else:
                number = self.get(operand) & ((1 << 8 * field.size) - 1)
                content = number.to_bytes(field.size, "little")
            record[field.offset : field.offset + field.size] = content
        return bytes(record)

    def key(self, layout: MapLayout, operands: Sequence[ir.Operand]) -> bytes:
        """Return the key of a map; empty for one without. The interpreter has one window."""
        return self.pack(layout.key, operands, layout.key_size) if layout.key else b""


def _as_string(content: bytes, size: int) -> bytes:
    return content.split(b"\0", 1)[0][: size - 1].ljust(size, b"\0")


def number_in(field: Field, content: bytes) -> int:
    """Return the integer that *field* is in *content*."""
    raw = content[field.offset : field.offset + field.size]
    return int.from_bytes(raw, "little", signed=field.kind == "int")
