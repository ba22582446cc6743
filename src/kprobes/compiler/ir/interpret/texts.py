"""Byte buffers: strings that are read, compared, cut and put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.compiler.ir import nodes as ir

if TYPE_CHECKING:
    from collections.abc import Callable

    from kprobes.compiler.ir.interpret.run import Run


def _read_text(run: Run, node: ir.ReadText) -> None:
    found = _string_at(run, node)
    if node.failed is not None:
        run.set(node.failed, found is None)
    run.fault |= found is None
    run.fill(node.slot, found or b"")


def _string_at(run: Run, node: ir.ReadText) -> bytes | None:
    """Return up to the slot's size of bytes before a NUL, None where a byte can't be read."""
    address, size = run.get(node.address) + node.offset, node.slot.size
    whole = run.read(node.space, address, size)
    if whole is not None:
        return whole
    found = bytearray()
    while len(found) < size:
        byte = run.read(node.space, address + len(found), 1)
        if byte is None:
            return None
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


def _match_text(run: Run, node: ir.MatchText) -> None:
    reached = _behind_stars(node.elements, {0})
    for byte in _string(run, node.slot):
        reached = {at for at in reached if at < len(node.elements) and not node.elements[at]} | {
            at + 1 for at in reached if at < len(node.elements) and byte in node.elements[at]
        }
        reached = _behind_stars(node.elements, reached)
    run.set(node.to, len(node.elements) in reached)


def _behind_stars(elements: tuple[bytes, ...], reached: set[int]) -> set[int]:
    """Return *reached*, and what lies behind the stars there."""
    found = set(reached)
    for at, element in enumerate(elements):
        if at in found and not element:
            found.add(at + 1)
    return found


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


NODES: dict[type, Callable[..., None]] = {
    ir.ReadText: _read_text,
    ir.ReadBytes: _read_bytes,
    ir.RecordText: _record_text,
    ir.ConstText: _const_text,
    ir.CopyText: _copy_text,
    ir.BuiltinText: _builtin_text,
    ir.CompareText: _compare_text,
    ir.CompareTexts: _compare_texts,
    ir.FindText: _find_text,
    ir.MatchText: _match_text,
    ir.TextLength: _text_length,
    ir.CutText: _cut_text,
    ir.FormatText: _format_text,
}
