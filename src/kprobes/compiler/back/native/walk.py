"""The walk up a thread's stack, in LLVM text.

It starts from the registers of the hit. For each frame the table says where the caller's begins (see `symbols.unwind`
for the rows); where no table knows the code, the frame pointer is believed: code that a program makes at run time often
has one. The stack is read on the page of the stack pointer directly, else page by page into working memory, safely.
What can't be read, or leads down the stack, ends the walk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.compiler.back.native.memory import read as read_safely
from kprobes.compiler.back.native.runtime import function
from kprobes.model.shared import (
    PAGE,
    STACK_DEPTH,
    UNWIND_OBJECT,
    UNWIND_OBJECTS,
    UNWIND_SIGNAL,
    UNWIND_STOP,
    UNWIND_UNKNOWN,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from kprobes.compiler.back.text import ModuleText

# In the ucontext that a signal handler returns by: rbp, rsp, rip.
_SIGNAL_BP, _SIGNAL_SP, _SIGNAL_IP = 120, 160, 168


def _rule(module: ModuleText) -> str:
    """Return the function (unwind, address) -> the row's upper 32 bits; UNKNOWN where no table has the address."""
    body = f"""start:
  %n = load i64, ptr %unwind, align 8
  br label %objects
objects:
  %i = phi i64 [ 0, %start ], [ %j, %next ]
  %more = icmp ult i64 %i, %n
  br i1 %more, label %object, label %none
object:
  %far = mul i64 %i, {UNWIND_OBJECT}
  %off = add i64 %far, {UNWIND_OBJECTS}
  %p = getelementptr i8, ptr %unwind, i64 %off
  %begin = load i64, ptr %p, align 8
  %ep = getelementptr i8, ptr %p, i64 8
  %end = load i64, ptr %ep, align 8
  %after = icmp uge i64 %address, %begin
  %before = icmp ult i64 %address, %end
  %in = and i1 %after, %before
  %j = add i64 %i, 1
  br i1 %in, label %inside, label %next
next:
  br label %objects
inside:
  %sp = getelementptr i8, ptr %p, i64 16
  %shift = load i64, ptr %sp, align 8
  %rp = getelementptr i8, ptr %p, i64 24
  %rows_at = load i64, ptr %rp, align 8
  %cp = getelementptr i8, ptr %p, i64 32
  %count = load i64, ptr %cp, align 8
  %rows = getelementptr i8, ptr %unwind, i64 %rows_at
  %wanted = sub i64 %address, %shift
  br label %search
search:
  %low = phi i64 [ 0, %inside ], [ %low1, %half ]
  %high = phi i64 [ %count, %inside ], [ %high1, %half ]
  %some = icmp ult i64 %low, %high
  br i1 %some, label %half, label %found
half:
  %sum = add i64 %low, %high
  %mid = lshr i64 %sum, 1
  %mp = getelementptr i64, ptr %rows, i64 %mid
  %key32 = load i32, ptr %mp, align 8
  %key = zext i32 %key32 to i64
  %below = icmp ule i64 %key, %wanted
  %up = add i64 %mid, 1
  %low1 = select i1 %below, i64 %up, i64 %low
  %high1 = select i1 %below, i64 %high, i64 %mid
  br label %search
found:
  %first = icmp eq i64 %low, 0
  br i1 %first, label %none, label %take
take:
  %last = add i64 %low, -1
  %tp = getelementptr i64, ptr %rows, i64 %last
  %hp = getelementptr i8, ptr %tp, i64 4
  %rule32 = load i32, ptr %hp, align 4
  %rule = zext i32 %rule32 to i64
  ret i64 %rule
none:
  ret i64 {UNWIND_UNKNOWN}"""
    return function(module, "kp.rule", "i64", "ptr %unwind, i64 %address", body)


def _peek(module: ModuleText) -> str:
    """Return the function (scratch, page, address, sp, block) -> the word at the address, 0 where it can't be read.

    *page* holds the address of the page that *scratch* holds a copy of.
    """
    body = f"""start:
  %low = and i64 %address, 7
  %odd = icmp ne i64 %low, 0
  br i1 %odd, label %none, label %near
near:
  %x = xor i64 %address, %sp
  %is = icmp ult i64 %x, {PAGE}
  br i1 %is, label %direct, label %held
direct:
  %p = inttoptr i64 %address to ptr
  %v = load volatile i64, ptr %p, align 8
  ret i64 %v
held:
  %wanted = and i64 %address, -{PAGE}
  %has = load i64, ptr %page, align 8
  %same = icmp eq i64 %has, %wanted
  br i1 %same, label %take, label %fetch
fetch:
  store i64 0, ptr %page, align 8
  %got = call i64 {read_safely(module)}(ptr %scratch, i64 %wanted, i64 {PAGE}, i64 %sp, ptr %block)
  %ok = icmp eq i64 %got, 0
  br i1 %ok, label %keep, label %none
keep:
  store i64 %wanted, ptr %page, align 8
  br label %take
take:
  %inside = and i64 %address, {PAGE - 1}
  %q = getelementptr i8, ptr %scratch, i64 %inside
  %w = load i64, ptr %q, align 8
  ret i64 %w
none:
  ret i64 0"""
    return function(module, "kp.peek", "i64", "ptr %scratch, ptr %page, i64 %address, i64 %sp, ptr %block", body)


# Fills the rest of the addresses with zeros.
_ZERO = f"""end:
  br label %zero
zero:
  %z = phi i64 [ %n1, %end ], [ %z1, %fill ]
  %left = icmp ult i64 %z, {STACK_DEPTH}
  br i1 %left, label %fill, label %done
fill:
  %zp = getelementptr i64, ptr %out, i64 %z
  store volatile i64 0, ptr %zp, align 8
  %z1 = add i64 %z, 1
  br label %zero
done:
  ret void"""


def walk(module: ModuleText) -> str:
    """Return the function (scratch, unwind, block, ip, sp, bp): writes the addresses behind the page in *scratch*."""
    rule, peek = _rule(module), _peek(module)

    def read(to: str, address: str) -> str:
        return f"%{to} = call i64 {peek}(ptr %scratch, ptr %page, i64 {address}, i64 %sp0, ptr %block)"

    body = f"""start:
  %page = alloca i64, align 8
  store i64 0, ptr %page, align 8
  %out = getelementptr i8, ptr %scratch, i64 {PAGE}
  br label %frame
frame:
  %n = phi i64 [ 0, %start ], [ %n1, %step ]
  %ip = phi i64 [ %ip0, %start ], [ %ip1, %step ]
  %sp = phi i64 [ %sp0, %start ], [ %sp1, %step ]
  %bp = phi i64 [ %bp0, %start ], [ %bp1, %step ]
  %back = phi i64 [ 0, %start ], [ %back1, %step ]
  %to = getelementptr i64, ptr %out, i64 %n
  store i64 %ip, ptr %to, align 8
  %n1 = add i64 %n, 1
  %full = icmp uge i64 %n1, {STACK_DEPTH}
  br i1 %full, label %end, label %look
look:
  %at = sub i64 %ip, %back
  %rule = call i64 {rule}(ptr %unwind, i64 %at)
  %how = and i64 %rule, 65535
  %stops = icmp eq i64 %how, {UNWIND_STOP}
  br i1 %stops, label %end, label %signal
signal:
  %from_signal = icmp eq i64 %how, {UNWIND_SIGNAL}
  br i1 %from_signal, label %interrupted, label %unknown
{_interrupted(read)}
unknown:
  %is_unknown = icmp eq i64 %how, {UNWIND_UNKNOWN}
  br i1 %is_unknown, label %pointer, label %ruled
{_pointed(read)}
{_ruled(read)}
rising:
  %ip_u = phi i64 [ %ip_f, %pointer ], [ %ip_r, %ruled_end ]
  %sp_u = phi i64 [ %sp_f, %pointer ], [ %cfa, %ruled_end ]
  %bp_u = phi i64 [ %bp_f, %pointer ], [ %bp_q, %ruled_end ]
  %up = icmp ugt i64 %sp_u, %sp
  br i1 %up, label %step, label %end
step:
  %ip1 = phi i64 [ %ip_s, %interrupted ], [ %ip_u, %rising ]
  %sp1 = phi i64 [ %sp_s, %interrupted ], [ %sp_u, %rising ]
  %bp1 = phi i64 [ %bp_s, %interrupted ], [ %bp_u, %rising ]
  %back1 = phi i64 [ 0, %interrupted ], [ 1, %rising ]
  %low_ip = icmp ult i64 %ip1, {PAGE}
  br i1 %low_ip, label %end, label %frame
{_ZERO}"""
    parameters = "ptr %scratch, ptr %unwind, ptr %block, i64 %ip0, i64 %sp0, i64 %bp0"
    return function(module, "kp.walk", "void", parameters, body)


def _interrupted(read: Callable[[str, str], str]) -> str:
    """Return the block in which a signal's frame tells the registers of who was interrupted."""
    return f"""interrupted:
  %s0 = add i64 %sp, {_SIGNAL_IP}
  {read("ip_s", "%s0")}
  %s1 = add i64 %sp, {_SIGNAL_SP}
  {read("sp_s", "%s1")}
  %s2 = add i64 %sp, {_SIGNAL_BP}
  {read("bp_s", "%s2")}
  br label %step"""


def _pointed(read: Callable[[str, str], str]) -> str:
    """Return the block in which the frame pointer is believed."""
    return f"""pointer:
  %f0 = add i64 %bp, 8
  {read("ip_f", "%f0")}
  {read("bp_f", "%bp")}
  %sp_f = add i64 %bp, 16
  br label %rising"""


def _ruled(read: Callable[[str, str], str]) -> str:
    """Return the blocks in which a row of a table tells where the caller's frame begins."""
    return f"""ruled:
  %bit = and i64 %how, 1
  %by_bp = icmp ne i64 %bit, 0
  %base = select i1 %by_bp, i64 %bp, i64 %sp
  %words = lshr i64 %how, 1
  %bytes = shl i64 %words, 3
  %cfa = add i64 %base, %bytes
  %r0 = add i64 %cfa, -8
  {read("ip_r", "%r0")}
  %high = lshr i64 %rule, 16
  %kept16 = trunc i64 %high to i16
  %kept = sext i16 %kept16 to i64
  %is_kept = icmp ne i64 %kept, 0
  br i1 %is_kept, label %restore, label %ruled_end
restore:
  %kept_at = shl i64 %kept, 3
  %r1 = add i64 %cfa, %kept_at
  {read("bp_r", "%r1")}
  br label %ruled_end
ruled_end:
  %bp_q = phi i64 [ %bp, %ruled ], [ %bp_r, %restore ]
  br label %rising"""
