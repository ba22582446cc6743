"""Safe reads: functions in LLVM text that read the program's memory.

A handler runs inside of the program, so a wild pointer would kill the program. Memory is read

- directly where it can't go away: on the page of the stack pointer, and in ranges of which the engine knows that they
  stay mapped (the program's own segments);
- else by process_vm_readv of the thread itself, which fails where a load would fault, whatever other threads unmap
  meanwhile; only where no seccomp filter could object to it;
- else not at all: a fault.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.compiler.back.native.runtime import copy_bytes, function, own_id, system_call, zero_bytes
from kprobes.model.shared import PAGE, RANGES, WORLD_MAY_CALL, WORLD_RANGES

if TYPE_CHECKING:
    from kprobes.compiler.back.text import ModuleText

_LARGEST = 0x7FFF_FFFF_F000  # user addresses end here
_SYS_PROCESS_VM_READV = 310


def read(module: ModuleText) -> str:
    """Return the function (to, from, size, sp, block) -> 0, or -1 where it can't be read; *to* is then filled with
    zeros."""
    copy, zero, own = copy_bytes(module), zero_bytes(module), own_id(module)
    world = module.external("map:world")
    body = f"""start:
  %pair = alloca [4 x i64], align 8
  %last0 = add i64 %from, %size
  %last = add i64 %last0, -1
  %wraps = icmp ult i64 %last, %from
  %high = icmp uge i64 %last, {_LARGEST}
  %low = icmp ult i64 %from, {PAGE}
  %bad0 = or i1 %wraps, %high
  %bad = or i1 %bad0, %low
  br i1 %bad, label %fail, label %near
near:
  %x = xor i64 %from, %sp
  %y = xor i64 %last, %sp
  %xy = or i64 %x, %y
  %is = icmp ult i64 %xy, {PAGE}
  br i1 %is, label %direct, label %ranges
ranges:
  %np = getelementptr i8, ptr {world}, i64 {WORLD_RANGES}
  %n = load i64, ptr %np, align 8
  %bytes = shl i64 %n, 4
  br label %range
range:
  %at = phi i64 [ 0, %ranges ], [ %next, %another ]
  %more = icmp ult i64 %at, %bytes
  br i1 %more, label %look, label %ask
look:
  %here = add i64 %at, {RANGES}
  %sp0 = getelementptr i8, ptr {world}, i64 %here
  %begin = load i64, ptr %sp0, align 8
  %ep = getelementptr i8, ptr %sp0, i64 8
  %end = load i64, ptr %ep, align 8
  %after = icmp uge i64 %from, %begin
  %before = icmp ult i64 %last, %end
  %in = and i1 %after, %before
  br i1 %in, label %direct, label %another
another:
  %next = add i64 %at, 16
  br label %range
{_ask(own, world)}
direct:
  %source = inttoptr i64 %from to ptr
  call void {copy}(ptr %to, ptr %source, i64 %size)
  br label %ok
ok:
  ret i64 0
fail:
  call void {zero}(ptr %to, i64 %size)
  ret i64 -1"""
    return function(module, "kp.read", "i64", "ptr %to, i64 %from, i64 %size, i64 %sp, ptr %block", body)


def _ask(own: str, world: str) -> str:
    """Return the blocks of `read` from `ask` on, in which the kernel reads; they go on at `ok` or `fail`."""
    return f"""ask:
  %mp = getelementptr i8, ptr {world}, i64 {WORLD_MAY_CALL}
  %may = load i32, ptr %mp, align 4
  %can = icmp ne i32 %may, 0
  br i1 %can, label %call, label %fail
call:
  %to0 = ptrtoint ptr %to to i64
  %p1 = getelementptr i8, ptr %pair, i64 8
  %p2 = getelementptr i8, ptr %pair, i64 16
  %p3 = getelementptr i8, ptr %pair, i64 24
  store i64 %to0, ptr %pair, align 8
  store i64 %size, ptr %p1, align 8
  store i64 %from, ptr %p2, align 8
  store i64 %size, ptr %p3, align 8
  %local = ptrtoint ptr %pair to i64
  %remote = ptrtoint ptr %p2 to i64
  %tid = call i64 {own}(ptr %block)
  %got = {system_call(_SYS_PROCESS_VM_READV, "%tid", "%local", "1", "%remote", "1", "0")}
  %all = icmp eq i64 %got, %size
  br i1 %all, label %ok, label %fail"""


def read_text(module: ModuleText) -> str:
    """Return the function as `read`, for a string: cut to *size* with its NUL, zeros behind it."""
    one, zero = read(module), zero_bytes(module)
    body = f"""start:
  br label %piece
piece:
  %at = phi i64 [ 0, %start ], [ %after, %none ]
  %address = add i64 %from, %at
  %in_page = and i64 %address, {PAGE - 1}
  %to_end = sub i64 {PAGE}, %in_page
  %left = sub i64 %size, %at
  %less = icmp ult i64 %left, %to_end
  %length = select i1 %less, i64 %left, i64 %to_end
  %target = getelementptr i8, ptr %to, i64 %at
  %got = call i64 {one}(ptr %target, i64 %address, i64 %length, i64 %sp, ptr %block)
  %ok = icmp eq i64 %got, 0
  %after = add i64 %at, %length
  br i1 %ok, label %scan, label %fail
scan:
  %i = phi i64 [ %at, %piece ], [ %j, %byte ]
  %more = icmp ult i64 %i, %after
  br i1 %more, label %byte, label %none
byte:
  %p = getelementptr i8, ptr %to, i64 %i
  %c = load volatile i8, ptr %p, align 1
  %is = icmp eq i8 %c, 0
  %j = add i64 %i, 1
  br i1 %is, label %found, label %scan
none:
  %full = icmp uge i64 %after, %size
  br i1 %full, label %cut, label %piece
cut:
  %end = add i64 %size, -1
  %q = getelementptr i8, ptr %to, i64 %end
  store i8 0, ptr %q, align 1
  ret i64 0
found:
  %rest = sub i64 %size, %i
  call void {zero}(ptr %p, i64 %rest)
  ret i64 0
fail:
  call void {zero}(ptr %to, i64 %size)
  ret i64 -1"""
    return function(module, "kp.read_text", "i64", "ptr %to, i64 %from, i64 %size, i64 %sp, ptr %block", body)
