"""Functions in LLVM text over queues (see `model.shared`): many threads push and pop, none waits for another for long.

A position is claimed by compare-and-exchange; then its slot is filled or emptied, and handed on by its turn. A thread
that died or was interrupted in between looks to the others like an empty queue, or a full one a round later.

Source: the bounded queue of Dmitry Vyukov (turns instead of sequence numbers, so that zeros are an empty one).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.compiler.back.native.runtime import copy_bytes, function
from kprobes.model.shared import QUEUE_HEAD, QUEUE_SLOTS, QUEUE_TAIL

if TYPE_CHECKING:
    from kprobes.compiler.back.text import ModuleText

_SPINS = 1000
PARAMETERS = "ptr %queue, ptr %value, i64 %stride, i64 %bits, i64 %most"


def _slot(position: str) -> str:
    """Return the lines that find the slot of *position*, its turn, and what its round makes of a free one."""
    return f"""  %ones = shl i64 -1, %bits
  %mask = xor i64 %ones, -1
  %number = and i64 {position}, %mask
  %distance = mul i64 %number, %stride
  %offset = add i64 %distance, {QUEUE_SLOTS}
  %slot = getelementptr i8, ptr %queue, i64 %offset
  %turn = load atomic volatile i64, ptr %slot acquire, align 8
  %round = lshr i64 {position}, %bits
  %free = shl i64 %round, 1
  %filled = or i64 %free, 1"""


def push(module: ModuleText) -> str:
    """Return the function (queue, value, stride, bits, most) -> 0, or -1 where *most* values wait already."""
    copy = copy_bytes(module)
    body = f"""start:
  %hp = getelementptr i8, ptr %queue, i64 {QUEUE_HEAD}
  %tp = getelementptr i8, ptr %queue, i64 {QUEUE_TAIL}
  %size = add i64 %stride, -8
  br label %loop
loop:
  %n = phi i64 [ 0, %start ], [ %m, %again ]
  %tail = load atomic volatile i64, ptr %tp acquire, align 8
  %head = load atomic volatile i64, ptr %hp acquire, align 8
  %same = load atomic volatile i64, ptr %tp acquire, align 8
  %still = icmp eq i64 %tail, %same
  br i1 %still, label %room, label %again
room:
  %used = sub i64 %tail, %head
  %full = icmp uge i64 %used, %most
  br i1 %full, label %no, label %look
look:
{_slot("%tail")}
  %ready = icmp eq i64 %turn, %free
  br i1 %ready, label %claim, label %again
claim:
  %next = add i64 %tail, 1
  %pair = cmpxchg ptr %tp, i64 %tail, i64 %next acq_rel monotonic, align 8
  %won = extractvalue {{ i64, i1 }} %pair, 1
  br i1 %won, label %fill, label %again
again:
  call void asm sideeffect "pause", "~{{memory}}"()
  %m = add i64 %n, 1
  %enough = icmp ugt i64 %m, {_SPINS}
  br i1 %enough, label %no, label %loop
fill:
  %place = getelementptr i8, ptr %slot, i64 8
  call void {copy}(ptr %place, ptr %value, i64 %size)
  store atomic volatile i64 %filled, ptr %slot release, align 8
  ret i64 0
no:
  ret i64 -1"""
    return function(module, "kp.push", "i64", PARAMETERS, body)


def pop(module: ModuleText) -> str:
    """Return the function (queue, value, stride, bits, most) -> 0, or -1 where none waits."""
    copy = copy_bytes(module)
    body = f"""start:
  %hp = getelementptr i8, ptr %queue, i64 {QUEUE_HEAD}
  %tp = getelementptr i8, ptr %queue, i64 {QUEUE_TAIL}
  %size = add i64 %stride, -8
  br label %loop
loop:
  %n = phi i64 [ 0, %start ], [ %m, %again ]
  %head = load atomic volatile i64, ptr %hp acquire, align 8
{_slot("%head")}
  %ready = icmp eq i64 %turn, %filled
  br i1 %ready, label %claim, label %look
look:
  %tail = load atomic volatile i64, ptr %tp acquire, align 8
  %empty = icmp eq i64 %head, %tail
  br i1 %empty, label %no, label %again
claim:
  %next = add i64 %head, 1
  %pair = cmpxchg ptr %hp, i64 %head, i64 %next acq_rel monotonic, align 8
  %won = extractvalue {{ i64, i1 }} %pair, 1
  br i1 %won, label %empty_it, label %again
again:
  call void asm sideeffect "pause", "~{{memory}}"()
  %m = add i64 %n, 1
  %enough = icmp ugt i64 %m, {_SPINS}
  br i1 %enough, label %no, label %loop
empty_it:
  %place = getelementptr i8, ptr %slot, i64 8
  call void {copy}(ptr %value, ptr %place, i64 %size)
  %later = add i64 %filled, 1
  store atomic volatile i64 %later, ptr %slot release, align 8
  ret i64 0
no:
  ret i64 -1"""
    return function(module, "kp.pop", "i64", PARAMETERS, body)
