"""Maps and queues."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.compiler.ir import nodes as ir
from kprobes.compiler.ir.interpret.run import number_in
from kprobes.compiler.ir.storage import Elements, bucket_of
from kprobes.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kprobes.compiler.ir.interpret.run import Run
    from kprobes.model.layout import MapLayout


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
            run.set(value, number_in(field, content))
    for field, slot in zip(layout.value, node.texts, strict=False):
        if slot is not None:
            run.fill(slot, content[field.offset : field.offset + field.size])
    run.set(node.found, found is not None)


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


NODES: dict[type, Callable[..., None]] = {
    ir.MapAdd: _map_add,
    ir.MapSample: _map_sample,
    ir.MapFold: _map_fold,
    ir.MapRead: _map_read,
    ir.MapWrite: _map_write,
    ir.MapBump: _map_bump,
    ir.MapDelete: _map_delete,
    ir.QueuePush: _queue_push,
    ir.QueuePop: _queue_pop,
}
