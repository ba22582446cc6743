"""Tables with keys: functions in LLVM text that find, claim and give up slots.

They are read and filled by many threads, none of which waits for another for long: a slot is claimed by
compare-and-exchange, filled, and then published. A thread that died or was interrupted while it filled one costs its
followers `_SPINS` looks at it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.compiler.back.native.runtime import copy_bytes, function, zero_bytes
from kprobes.model.shared import (
    SLOT_CLAIMED,
    SLOT_DELETED,
    SLOT_FREE,
    SLOT_FULL,
    SLOT_HASH,
    SLOT_KEY,
    TABLE_HEADER,
    TABLE_USED,
)

if TYPE_CHECKING:
    from kprobes.compiler.back.text import ModuleText

_PROBES = 256
_SPINS = 1000


def hash_key(module: ModuleText) -> str:
    """Return the function (key, words) -> a hash of 64 bits."""
    body = """start:
  br label %loop
loop:
  %i = phi i64 [ 0, %start ], [ %j, %word ]
  %h = phi i64 [ 1, %start ], [ %mixed, %word ]
  %more = icmp ult i64 %i, %words
  br i1 %more, label %word, label %end
word:
  %p = getelementptr i64, ptr %key, i64 %i
  %v = load i64, ptr %p, align 8
  %x = xor i64 %h, %v
  %m = mul i64 %x, -7046029254386353131
  %s = lshr i64 %m, 29
  %mixed = xor i64 %m, %s
  %j = add i64 %i, 1
  br label %loop
end:
  %last = mul i64 %h, -4417276706812531889
  %top = lshr i64 %last, 32
  %all = xor i64 %last, %top
  ret i64 %all"""
    return function(module, "kp.hash", "i64", "ptr %key, i64 %words", body)


def matches(module: ModuleText) -> str:
    """Return the function (slot, hash, key, words) -> whether the slot holds the key.

    Waits a little for one that is being filled.
    """
    body = f"""start:
  %hp = getelementptr i8, ptr %slot, i64 {SLOT_HASH}
  br label %look
look:
  %n = phi i64 [ 0, %start ], [ %m, %wait ]
  %state = load atomic volatile i32, ptr %slot acquire, align 4
  %busy = icmp eq i32 %state, {SLOT_CLAIMED}
  br i1 %busy, label %wait, label %settled
wait:
  call void asm sideeffect "pause", "~{{memory}}"()
  %m = add i64 %n, 1
  %enough = icmp ugt i64 %m, {_SPINS}
  br i1 %enough, label %no, label %look
settled:
  %full = icmp eq i32 %state, {SLOT_FULL}
  br i1 %full, label %compare, label %no
compare:
  %h = load i32, ptr %hp, align 4
  %same = icmp eq i32 %h, %hash
  br i1 %same, label %loop, label %no
loop:
  %i = phi i64 [ 0, %compare ], [ %j, %equal ]
  %more = icmp ult i64 %i, %words
  br i1 %more, label %word, label %yes
word:
  %at = add i64 %i, 1
  %p = getelementptr i64, ptr %slot, i64 %at
  %q = getelementptr i64, ptr %key, i64 %i
  %a = load i64, ptr %p, align 8
  %b = load i64, ptr %q, align 8
  %is = icmp eq i64 %a, %b
  br i1 %is, label %equal, label %no
equal:
  %j = add i64 %i, 1
  br label %loop
yes:
  ret i1 true
no:
  ret i1 false"""
    return function(module, "kp.matches", "i1", "ptr %slot, i32 %hash, ptr %key, i64 %words", body)


def find(module: ModuleText) -> str:
    """Return the function (table, key, words, stride, mask) -> the key's slot, or null."""
    hashed, match = hash_key(module), matches(module)
    body = f"""start:
  %h64 = call i64 {hashed}(ptr %key, i64 %words)
  %hash = trunc i64 %h64 to i32
  br label %loop
loop:
  %n = phi i64 [ 0, %start ], [ %m, %another ]
  %place = add i64 %h64, %n
  %number = and i64 %place, %mask
  %distance = mul i64 %number, %stride
  %offset = add i64 %distance, {TABLE_HEADER}
  %slot = getelementptr i8, ptr %table, i64 %offset
  %state = load atomic volatile i32, ptr %slot acquire, align 4
  %free = icmp eq i32 %state, {SLOT_FREE}
  br i1 %free, label %none, label %look
look:
  %is = call i1 {match}(ptr %slot, i32 %hash, ptr %key, i64 %words)
  br i1 %is, label %found, label %another
another:
  %m = add i64 %n, 1
  %enough = icmp uge i64 %m, {_PROBES}
  br i1 %enough, label %none, label %loop
found:
  ret ptr %slot
none:
  ret ptr null"""
    return function(module, "kp.find", "ptr", "ptr %table, ptr %key, i64 %words, i64 %stride, i64 %mask", body)


def claim(module: ModuleText) -> str:
    """Return the function (table, key, words, stride, mask, most, value) -> the key's slot, made if need be.

    A new slot gets *value* (null: zeros). Null where there are *most* keys already.
    """
    looked, hashed, match = find(module), hash_key(module), matches(module)
    copy, zero = copy_bytes(module), zero_bytes(module)
    body = f"""start:
  %old = call ptr {looked}(ptr %table, ptr %key, i64 %words, i64 %stride, i64 %mask)
  %known = icmp ne ptr %old, null
  br i1 %known, label %there, label %make
there:
  ret ptr %old
make:
  %up = getelementptr i8, ptr %table, i64 {TABLE_USED}
  %used = atomicrmw add ptr %up, i64 1 monotonic, align 8
  %over = icmp uge i64 %used, %most
  br i1 %over, label %undo, label %begin
begin:
  %h64 = call i64 {hashed}(ptr %key, i64 %words)
  %hash = trunc i64 %h64 to i32
  br label %loop
loop:
  %n = phi i64 [ 0, %begin ], [ %m, %another ]
  %place = add i64 %h64, %n
  %number = and i64 %place, %mask
  %distance = mul i64 %number, %stride
  %offset = add i64 %distance, {TABLE_HEADER}
  %slot = getelementptr i8, ptr %table, i64 %offset
  %state = load atomic volatile i32, ptr %slot acquire, align 4
  %free = icmp eq i32 %state, {SLOT_FREE}
  %gone = icmp eq i32 %state, {SLOT_DELETED}
  %empty = or i1 %free, %gone
  br i1 %empty, label %try, label %look
try:
  %pair = cmpxchg ptr %slot, i32 %state, i32 {SLOT_CLAIMED} acq_rel monotonic, align 4
  %won = extractvalue {{ i32, i1 }} %pair, 1
  br i1 %won, label %fill, label %look
look:
  %is = call i1 {match}(ptr %slot, i32 %hash, ptr %key, i64 %words)
  br i1 %is, label %same, label %another
another:
  %m = add i64 %n, 1
  %enough = icmp uge i64 %m, {_PROBES}
  br i1 %enough, label %undo, label %loop
{_fill(copy, zero)}
same:
  atomicrmw sub ptr %up, i64 1 monotonic, align 8
  ret ptr %slot
undo:
  atomicrmw sub ptr %up, i64 1 monotonic, align 8
  ret ptr null"""
    parameters = "ptr %table, ptr %key, i64 %words, i64 %stride, i64 %mask, i64 %most, ptr %value"
    return function(module, "kp.claim", "ptr", parameters, body)


def _fill(copy: str, zero: str) -> str:
    """Return the blocks of `claim` from `fill` on, in which a slot that was taken gets its key and value."""
    return f"""fill:
  %hp = getelementptr i8, ptr %slot, i64 {SLOT_HASH}
  store i32 %hash, ptr %hp, align 4
  %kp = getelementptr i8, ptr %slot, i64 {SLOT_KEY}
  %bytes = shl i64 %words, 3
  call void {copy}(ptr %kp, ptr %key, i64 %bytes)
  %vp = getelementptr i8, ptr %kp, i64 %bytes
  %head = add i64 %bytes, {SLOT_KEY}
  %size = sub i64 %stride, %head
  %given = icmp ne ptr %value, null
  br i1 %given, label %set, label %clear
set:
  call void {copy}(ptr %vp, ptr %value, i64 %size)
  br label %publish
clear:
  call void {zero}(ptr %vp, i64 %size)
  br label %publish
publish:
  store atomic volatile i32 {SLOT_FULL}, ptr %slot release, align 4
  ret ptr %slot"""


def give_up(slot: str) -> str:
    """Return the blocks `try`, which takes the key in *slot* out of %table and returns whether it was there to be
    taken, and `no`, which returns that it wasn't."""
    return f"""try:
  %pair = cmpxchg ptr {slot}, i32 {SLOT_FULL}, i32 {SLOT_DELETED} acq_rel monotonic, align 4
  %won = extractvalue {{ i32, i1 }} %pair, 1
  br i1 %won, label %yes, label %no
yes:
  %up = getelementptr i8, ptr %table, i64 {TABLE_USED}
  atomicrmw sub ptr %up, i64 1 monotonic, align 8
  ret i1 true
no:
  ret i1 false"""


def forget(module: ModuleText) -> str:
    """Return the function (table, key, words, stride, mask) -> whether the key was there; it is no more."""
    looked = find(module)
    body = f"""start:
  %slot = call ptr {looked}(ptr %table, ptr %key, i64 %words, i64 %stride, i64 %mask)
  %known = icmp ne ptr %slot, null
  br i1 %known, label %try, label %no
{give_up("%slot")}"""
    parameters = "ptr %table, ptr %key, i64 %words, i64 %stride, i64 %mask"
    return function(module, "kp.forget", "i1", parameters, body)
