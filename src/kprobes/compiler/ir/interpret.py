"""Runs the IR in plain Python: the engine of dry runs, and the reference that every lowering is compared with.

It does exactly what the docstrings of `nodes` say, with maps and records in the binary layouts of `model.layout`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kprobes.compiler.ir import nodes as ir
from kprobes.compiler.ir.storage import Elements, Storage, Waiting, bucket_of, storage_of
from kprobes.errors import InternalError
from kprobes.model.layout import RECORD_HEADER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kprobes.compiler.ir.world import Frame, World
    from kprobes.model.layout import Field, MapLayout

_STEPS = 10_000_000  # far beyond what the kernel's verifier lets through
_WORD = (1 << 64) - 1


@dataclass(slots=True)
class Counters:
    """The counters of the one site, as in `SITE_COUNTERS`."""

    hits: int = 0
    missed: int = 0
    lost: int = 0
    faults: int = 0


class Interpreter:
    """Runs the parts of *handler* in *world*. *calls* bounds the calls in flight; *site* goes into records.

    `maps` and `counters` hold what came of it.
    """

    def __init__(self, handler: ir.Handler, world: World, *, calls: int = 16384, site: int = 0) -> None:
        self.handler = handler
        self.world = world
        self.site = site
        self.room_for_calls = calls
        self.maps = {layout.name: storage_of(layout) for layout in handler.maps}
        self.events = {event.id: event for event in handler.events}
        self.counters = Counters()
        self.saved: dict[int, tuple[int | bytes, ...]] = {}

    def enter(self, frame: Frame) -> None:
        """Run the entry part, if there is one."""
        if self.handler.entry is not None:
            self._run(self.handler.entry, frame)

    def leave(self, frame: Frame) -> None:
        """Run the exit part, if there is one."""
        if self.handler.exit is not None:
            self._run(self.handler.exit, frame)

    def read_map(self, name: str) -> list[tuple[bytes, bytes]]:
        """Return the (key, value) pairs of a map, as an engine does."""
        return self.maps[name].read()

    def storage(self, name: str) -> Storage:
        """Return a map with keys, or of one value."""
        found = self.maps[name]
        if not isinstance(found, Storage):
            raise InternalError(f"the map {name} has no keys")
        return found

    def lookups(self, name: str) -> Storage | Elements:
        """Return a map or an array."""
        found = self.maps[name]
        if isinstance(found, Waiting):
            raise InternalError(f"the map {name} is a queue")
        return found

    def queue(self, name: str) -> Waiting:
        """Return a queue."""
        found = self.maps[name]
        if not isinstance(found, Waiting):
            raise InternalError(f"the map {name} is no queue")
        return found

    def _run(self, function: ir.Function, frame: Frame) -> None:
        run = Run(self, function, frame)
        has_both = self.handler.entry is not None and self.handler.exit is not None
        self.counters.hits += not has_both
        if run.walk() and has_both and function.part == "entry":
            if self.saved.pop(frame.call, None) is not None:
                self.counters.missed += 1
            self.counters.hits += 1
        self.counters.faults += run.fault


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

    def walk(self) -> bool:
        """Run to the end; return whether that was without SaveCall."""
        blocks = {block.label: block for block in self.function.blocks}
        block, steps = self.function.blocks[0], 0
        while True:
            for node in block.nodes:
                NODES[type(node)](self, node)
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


# Integers


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


# The hit


def _read_context(run: Run, node: ir.ReadContext) -> None:
    frame = run.frame
    if node.what == "record":
        size = max(node.to.type.bits, 8) // 8
        number = int.from_bytes(frame.record[node.index : node.index + size], "little")
        run.set(node.to, number != 0 if node.to.type.bits == 1 else number)
        return
    if node.what == "argument":
        number = frame.arguments[node.index]
    elif node.what == "register":
        number = frame.registers[node.name]
    else:
        number = frame.result if node.what == "return" else frame.function
    run.set(node.to, number & 1 if node.to.type.bits == 1 else number)


def _write_context(run: Run, node: ir.WriteContext) -> None:
    run.host.world.write(node.what, node.name, run.get(node.source) if node.source else 0)


def _builtin(run: Run, node: ir.Builtin) -> None:
    run.set(node.to, run.host.world.number(node.name))


# Memory and texts


def _load(run: Run, node: ir.Load) -> None:
    size = max(node.to.type.bits, 8) // 8
    content = run.read(node.space, run.get(node.address) + node.offset, size)
    if content is None:
        run.fault = True
    number = int.from_bytes(content or b"", "little")
    run.set(node.to, number != 0 if node.to.type.bits == 1 else number)


def _read_text(run: Run, node: ir.ReadText) -> None:
    run.fill(node.slot, _string_at(run, node))


def _string_at(run: Run, node: ir.ReadText) -> bytes:
    """Return up to the slot's size of bytes before a NUL; a byte that can't be read is a fault, and nothing is left."""
    address, size = run.get(node.address) + node.offset, node.slot.size
    whole = run.read(node.space, address, size)
    if whole is not None:
        return whole
    found = bytearray()
    while len(found) < size:
        byte = run.read(node.space, address + len(found), 1)
        if byte is None:
            run.fault = True
            return b""
        if byte == b"\0":
            break
        found += byte
    return bytes(found)


def _read_bytes(run: Run, node: ir.ReadBytes) -> None:
    content = run.read(node.space, run.get(node.address) + node.offset, node.slot.size)
    if content is None:
        run.fault = True
    run.buffers[node.slot] = content or bytes(node.slot.size)


def _record_text(run: Run, node: ir.RecordText) -> None:
    record = run.frame.record
    if node.size:
        run.fill(node.slot, record[node.offset : node.offset + node.size])
        return
    where = int.from_bytes(record[node.offset : node.offset + 4], "little")
    run.fill(node.slot, record[where & 0xFFFF :])


def _const_text(run: Run, node: ir.ConstText) -> None:
    run.fill(node.slot, node.text)


def _copy_text(run: Run, node: ir.CopyText) -> None:
    run.fill(node.slot, run.buffers[node.source])


def _builtin_text(run: Run, node: ir.BuiltinText) -> None:
    run.fill(node.slot, run.host.world.text(node.name))


def _compare_text(run: Run, node: ir.CompareText) -> None:
    text = run.buffers[node.slot].split(b"\0", 1)[0]
    run.set(node.to, text.startswith(node.text) if node.prefix else text == node.text)


def _compare_texts(run: Run, node: ir.CompareTexts) -> None:
    left, right = (run.buffers[slot].split(b"\0", 1)[0] for slot in (node.left, node.right))
    run.set(node.to, left == right)


def _find_text(run: Run, node: ir.FindText) -> None:
    text = _string(run, node.slot)
    run.set(node.to, text.endswith(node.text) if node.at_end else node.text in text)


def _text_length(run: Run, node: ir.TextLength) -> None:
    run.set(node.to, len(_string(run, node.slot)))


def _cut_text(run: Run, node: ir.CutText) -> None:
    start = run.get(node.start)
    run.fill(node.slot, _string(run, node.source)[start : start + run.get(node.length)])


def _format_text(run: Run, node: ir.FormatText) -> None:
    operands = iter(node.operands)
    parts = []
    for piece in node.pieces:
        parts.append(piece.text)
        if piece.takes:
            operand = next(operands)
            if isinstance(operand, ir.Slot):
                parts.append(_string(run, operand))
            else:
                parts.append(_written(piece, run.get(operand)))
    run.fill(node.slot, b"".join(parts))


def _written(piece: ir.Piece, number: int) -> bytes:
    digits = f"{abs(number):{'d' if piece.base == 10 else 'X' if piece.upper else 'x'}}"
    sign = "-" if number < 0 else ""
    return sign.encode() + piece.prefix + digits.zfill(piece.least - len(sign)).encode()


def _string(run: Run, slot: ir.Slot) -> bytes:
    return run.buffers[slot].split(b"\0", 1)[0]


# Maps and events


def _map_add(run: Run, node: ir.MapAdd) -> None:
    _add(run, node.map, node.key, 0, run.get(node.amount))


def _add(run: Run, name: str, key: Sequence[ir.Operand], index: int, amount: int) -> None:
    storage = run.host.storage(name)
    if not storage.add(run.key(storage.layout, key), index, amount):
        run.fault = True


def _map_sample(run: Run, node: ir.MapSample) -> None:
    buckets = run.host.maps[node.map].layout.buckets
    if buckets is None:
        raise InternalError(f"the map {node.map} has no buckets")
    _add(run, node.map, node.key, bucket_of(buckets, run.get(node.sample)), run.get(node.weight))


def _map_fold(run: Run, node: ir.MapFold) -> None:
    storage = run.host.storage(node.map)
    if not storage.fold(run.key(storage.layout, node.key), run.get(node.sample)):
        run.fault = True


def _map_read(run: Run, node: ir.MapRead) -> None:
    storage = run.host.lookups(node.map)
    if isinstance(storage, Elements):
        found = storage.find(_index(run, node.key))
        run.fault |= found is None
    else:
        found = storage.find(run.key(storage.layout, node.key))
    _take(run, node, storage.layout, found)


def _index(run: Run, key: tuple[ir.Operand, ...]) -> int:
    assert isinstance(key[0], ir.Value)
    return run.get(key[0])


def _take(run: Run, node: ir.MapRead | ir.QueuePop, layout: MapLayout, found: bytes | None) -> None:
    content = bytes(layout.value_size) if found is None else found
    for field, value in zip(layout.value, node.to, strict=False):
        if value is not None:
            run.set(value, _number(field, content))
    for field, slot in zip(layout.value, node.texts, strict=False):
        if slot is not None:
            run.fill(slot, content[field.offset : field.offset + field.size])
    run.set(node.found, found is not None)


def _number(field: Field, content: bytes) -> int:
    raw = content[field.offset : field.offset + field.size]
    return int.from_bytes(raw, "little", signed=field.kind == "int")


def _map_write(run: Run, node: ir.MapWrite) -> None:
    storage = run.host.lookups(node.map)
    layout = storage.layout
    value = run.pack(layout.value, node.values, layout.value_size)
    if isinstance(storage, Elements):
        run.fault |= not storage.put(_index(run, node.key), value)
    elif not storage.put(run.key(layout, node.key), value):
        run.fault = True


def _map_bump(run: Run, node: ir.MapBump) -> None:
    storage = run.host.maps[node.map]
    if isinstance(storage, Elements):
        run.fault |= not storage.add(_index(run, node.key), run.get(node.amount))
    else:
        _add(run, node.map, node.key, 0, run.get(node.amount))


def _map_delete(run: Run, node: ir.MapDelete) -> None:
    storage = run.host.storage(node.map)
    run.set(node.found, storage.remove(run.key(storage.layout, node.key)))


def _queue_push(run: Run, node: ir.QueuePush) -> None:
    queue = run.host.queue(node.map)
    layout = queue.layout
    run.fault |= not queue.push(run.pack(layout.value, node.values, layout.value_size))


def _queue_pop(run: Run, node: ir.QueuePop) -> None:
    queue = run.host.queue(node.map)
    _take(run, node, queue.layout, queue.pop())


def _emit(run: Run, node: ir.Emit) -> None:
    layout = run.host.events[node.event]
    record = bytearray(run.pack(layout.fields, node.operands, layout.size))
    record[:RECORD_HEADER] = layout.id.to_bytes(4, "little") + run.host.site.to_bytes(4, "little")
    if not run.host.world.send(bytes(record)):
        run.host.counters.lost += 1


# Calls


def _save_call(run: Run, node: ir.SaveCall) -> None:
    host, call = run.host, run.frame.call
    if call in host.saved:
        host.counters.missed += 1  # the return of the call that left this was never seen
    elif len(host.saved) >= host.room_for_calls:
        host.counters.missed += 1
        return
    # As the fields keep them: cut to their size.
    kept = []
    for field, operand in zip(host.handler.call_fields, node.operands, strict=True):
        content = run.pack((field,), (operand,), field.offset + field.size)[field.offset :]
        kept.append(content if isinstance(operand, ir.Slot) else _number(_at_start(field), content))
    host.saved[call] = tuple(kept)


def _at_start(field: Field) -> Field:
    return type(field)(field.name, field.kind, 0, field.size)


def _restore_call(run: Run, node: ir.RestoreCall) -> None:
    host = run.host
    kept = host.saved.pop(run.frame.call, None)
    if kept is None:
        run.end()
        return
    host.counters.hits += 1
    for slot, content in zip(node.slots, kept, strict=True):
        if isinstance(content, bytes):
            run.fill(slot, content)
        elif slot.type is not None:
            run.numbers[slot] = wrap(content, slot.type)


NODES: dict[type, Callable[..., None]] = {
    ir.Const: _const,
    ir.Binary: _binary,
    ir.Compare: _compare,
    ir.Convert: _convert,
    ir.ReadSlot: _read_slot,
    ir.WriteSlot: _write_slot,
    ir.ReadContext: _read_context,
    ir.WriteContext: _write_context,
    ir.Load: _load,
    ir.ReadText: _read_text,
    ir.ReadBytes: _read_bytes,
    ir.RecordText: _record_text,
    ir.ConstText: _const_text,
    ir.CopyText: _copy_text,
    ir.BuiltinText: _builtin_text,
    ir.CompareText: _compare_text,
    ir.CompareTexts: _compare_texts,
    ir.FindText: _find_text,
    ir.TextLength: _text_length,
    ir.CutText: _cut_text,
    ir.FormatText: _format_text,
    ir.Builtin: _builtin,
    ir.MapAdd: _map_add,
    ir.MapSample: _map_sample,
    ir.MapFold: _map_fold,
    ir.MapRead: _map_read,
    ir.MapWrite: _map_write,
    ir.MapBump: _map_bump,
    ir.MapDelete: _map_delete,
    ir.QueuePush: _queue_push,
    ir.QueuePop: _queue_pop,
    ir.Emit: _emit,
    ir.SaveCall: _save_call,
    ir.RestoreCall: _restore_call,
    ir.Fault: _fault,
    ir.Faulted: _faulted,
}
