"""Making room in a table whose oldest key may go: a function in LLVM text, and the time stamps that it goes by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.compiler.back.native.runtime import function
from kprobes.compiler.back.native.tables import claim, give_up
from kprobes.model.shared import SLOT_FULL, TABLE_HEADER

if TYPE_CHECKING:
    from kprobes.compiler.back.text import ModuleText

_TRIES = 64  # others may take the room that was made
_SAMPLED = 64  # slots that are looked at: of a map of 32 keys or fewer all


def time_stamp() -> str:
    """Return the expression of the time that goes into slots."""
    return 'call i64 asm sideeffect "rdtsc; shlq $$32, %rdx; orq %rdx, %rax", "={ax},~{rdx},~{flags}"()'


def _evict(module: ModuleText) -> str:
    """Return the function (table, stride, mask) -> whether a key went: of some slots in a row the one that was used
    longest ago."""
    body = f"""start:
  %now = {time_stamp()}
  %mixed = mul i64 %now, -7046029254386353131
  %first = lshr i64 %mixed, 20
  br label %loop
loop:
  %n = phi i64 [ 0, %start ], [ %m, %next ]
  %best = phi ptr [ null, %start ], [ %better, %next ]
  %least = phi i64 [ -1, %start ], [ %less, %next ]
  %place = add i64 %first, %n
  %number = and i64 %place, %mask
  %distance = mul i64 %number, %stride
  %offset = add i64 %distance, {TABLE_HEADER}
  %slot = getelementptr i8, ptr %table, i64 %offset
  %state = load atomic volatile i32, ptr %slot acquire, align 4
  %full = icmp eq i32 %state, {SLOT_FULL}
  br i1 %full, label %look, label %next
look:
  %last = add i64 %stride, -8
  %sp = getelementptr i8, ptr %slot, i64 %last
  %stamp = load volatile i64, ptr %sp, align 8
  %older = icmp ult i64 %stamp, %least
  %pick = select i1 %older, ptr %slot, ptr %best
  %low = select i1 %older, i64 %stamp, i64 %least
  br label %next
next:
  %better = phi ptr [ %best, %loop ], [ %pick, %look ]
  %less = phi i64 [ %least, %loop ], [ %low, %look ]
  %m = add i64 %n, 1
  %around = icmp ugt i64 %m, %mask
  %enough = icmp uge i64 %m, {_SAMPLED}
  %stop = or i1 %around, %enough
  br i1 %stop, label %chosen, label %loop
chosen:
  %none = icmp eq ptr %better, null
  br i1 %none, label %no, label %try
{give_up("%better")}"""
    return function(module, "kp.evict", "i1", "ptr %table, i64 %stride, i64 %mask", body)


def claim_stamped(module: ModuleText) -> str:
    """Return the function `tables.claim` for a table whose oldest key goes when there are *most* of them."""
    made, room = claim(module), _evict(module)
    body = f"""start:
  br label %loop
loop:
  %n = phi i64 [ 0, %start ], [ %m, %make ]
  %slot = call ptr {made}(ptr %table, ptr %key, i64 %words, i64 %stride, i64 %mask, i64 %most, ptr %value)
  %there = icmp ne ptr %slot, null
  %enough = icmp ugt i64 %n, {_TRIES}
  %stop = or i1 %there, %enough
  br i1 %stop, label %end, label %make
make:
  call i1 {room}(ptr %table, i64 %stride, i64 %mask)
  %m = add i64 %n, 1
  br label %loop
end:
  ret ptr %slot"""
    parameters = "ptr %table, ptr %key, i64 %words, i64 %stride, i64 %mask, i64 %most, ptr %value"
    return function(module, "kp.claim_stamped", "ptr", parameters, body)
