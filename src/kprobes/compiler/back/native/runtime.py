"""Functions in LLVM text that handlers call: safe reads, and tables.

*Reads.* A handler runs inside of the program, so a wild pointer would kill the program. Memory is read

- directly where it can't go away: on the page of the stack pointer, and in ranges of which the engine knows that they
  stay mapped (the program's own segments);
- else by process_vm_readv of the thread itself, which fails where a load would fault, whatever other threads unmap
  meanwhile; only where no seccomp filter could object to it;
- else not at all: a fault.

*Tables* are read and filled by many threads, none of which waits for another for long: a slot is claimed by
compare-and-exchange, filled, and then published. A thread that died or was interrupted while it filled one costs its
followers `_SPINS` looks at it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.model.shared import (
    BLOCK_PID,
    BLOCK_SELF,
    MAX_BLOCKS,
    PAGE,
    RANGES,
    SLOT_CLAIMED,
    SLOT_DELETED,
    SLOT_FREE,
    SLOT_FULL,
    SLOT_HASH,
    SLOT_KEY,
    TABLE_HEADER,
    TABLE_USED,
    WORLD_MAY_CALL,
    WORLD_RANGES,
)

if TYPE_CHECKING:
    from kprobes.compiler.back.text import ModuleText

SECTION = "handler"
ATTRIBUTES = 'nounwind noredzone "no-builtins" "no-jump-tables"="true" '
_LARGEST = 0x7FFF_FFFF_F000  # user addresses end here
_SYS_GETPID, _SYS_GETTID, _SYS_PROCESS_VM_READV = 39, 186, 310
_PROBES = 256
_SPINS = 1000
_ASM = '"={ax},{ax},{di},{si},{dx},{r10},{r8},{r9},~{rcx},~{r11},~{memory},~{dirflag},~{fpsr},~{flags}"'


def system_call(number: int, *arguments: str) -> str:
    """Return the expression that makes a system call; arguments are i64 operands."""
    words = [*arguments, *["0"] * (6 - len(arguments))]
    listed = ", ".join(f"i64 {word}" for word in (str(number), *words))
    return f'call i64 asm sideeffect "syscall", {_ASM}({listed})'


def function(module: ModuleText, name: str, result: str, parameters: str, body: str, *, inline: bool = False) -> str:
    """Include an internal function in *module*, once, and return how it is called."""
    how = "alwaysinline " if inline else "noinline "
    text = f'define internal {result} @{name}({parameters}) {how}{ATTRIBUTES}section "{SECTION}" {{\n{body}\n}}'
    return module.include(name, text)


def own_id(module: ModuleText) -> str:
    """Return the function (block) -> the calling thread's id as its own system calls see it."""
    return _asked_once(module, "kp.own_id", BLOCK_SELF, _SYS_GETTID)


def own_process(module: ModuleText) -> str:
    """Return the function (block) -> the id of the calling process."""
    return _asked_once(module, "kp.own_process", BLOCK_PID, _SYS_GETPID)


def _asked_once(module: ModuleText, name: str, offset: int, number: int) -> str:
    """Return a function (block) -> what a system call says; a thread's own block keeps it."""
    body = f"""start:
  %place = getelementptr i8, ptr %block, i64 {offset}
  %known = load i32, ptr %place, align 4
  %is = icmp ne i32 %known, 0
  br i1 %is, label %there, label %ask
there:
  %wide = zext i32 %known to i64
  ret i64 %wide
ask:
  %found = {system_call(number)}
  %shared = load i64, ptr %block, align 8
  %own = icmp ne i64 %shared, 0
  br i1 %own, label %keep, label %end
keep:
  %low = trunc i64 %found to i32
  store i32 %low, ptr %place, align 4
  br label %end
end:
  ret i64 %found"""
    return function(module, name, "i64", "ptr %block", body)


def copy_bytes(module: ModuleText) -> str:
    """Return the function (to, from, size): copies words, then bytes."""
    body = """start:
  %whole = and i64 %size, -8
  br label %words
words:
  %at = phi i64 [ 0, %start ], [ %next, %word ]
  %more = icmp ult i64 %at, %whole
  br i1 %more, label %word, label %bytes
word:
  %p = getelementptr i8, ptr %from, i64 %at
  %q = getelementptr i8, ptr %to, i64 %at
  %v = load volatile i64, ptr %p, align 1
  store volatile i64 %v, ptr %q, align 1
  %next = add i64 %at, 8
  br label %words
bytes:
  %i = phi i64 [ %whole, %words ], [ %j, %byte ]
  %rest = icmp ult i64 %i, %size
  br i1 %rest, label %byte, label %end
byte:
  %b = getelementptr i8, ptr %from, i64 %i
  %c = getelementptr i8, ptr %to, i64 %i
  %w = load volatile i8, ptr %b, align 1
  store volatile i8 %w, ptr %c, align 1
  %j = add i64 %i, 1
  br label %bytes
end:
  ret void"""
    return function(module, "kp.copy", "void", "ptr %to, ptr %from, i64 %size", body)


def zero_bytes(module: ModuleText) -> str:
    """Return the function (to, size): fills with zeros."""
    body = """start:
  br label %loop
loop:
  %i = phi i64 [ 0, %start ], [ %j, %byte ]
  %more = icmp ult i64 %i, %size
  br i1 %more, label %byte, label %end
byte:
  %p = getelementptr i8, ptr %to, i64 %i
  store volatile i8 0, ptr %p, align 1
  %j = add i64 %i, 1
  br label %loop
end:
  ret void"""
    return function(module, "kp.zero", "void", "ptr %to, i64 %size", body)


def copy_string(module: ModuleText) -> str:
    """Return the function (to, from, size) -> length: copies a string, cut to *size* bytes with its NUL."""
    body = """start:
  %last = add i64 %size, -1
  br label %loop
loop:
  %i = phi i64 [ 0, %start ], [ %j, %byte ]
  %p = getelementptr i8, ptr %from, i64 %i
  %q = getelementptr i8, ptr %to, i64 %i
  %more = icmp ult i64 %i, %last
  br i1 %more, label %look, label %end
look:
  %c = load volatile i8, ptr %p, align 1
  %is = icmp eq i8 %c, 0
  br i1 %is, label %end, label %byte
byte:
  store volatile i8 %c, ptr %q, align 1
  %j = add i64 %i, 1
  br label %loop
end:
  store volatile i8 0, ptr %q, align 1
  ret i64 %i"""
    return function(module, "kp.copy_string", "i64", "ptr %to, ptr %from, i64 %size", body)


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


def find_word(module: ModuleText) -> str:
    """Return the function (first, word, stride) -> the first of `MAX_BLOCKS` places that holds the word, or null."""
    body = f"""start:
  br label %loop
loop:
  %n = phi i64 [ 0, %start ], [ %m, %another ]
  %offset = mul i64 %n, %stride
  %place = getelementptr i8, ptr %first, i64 %offset
  %value = load volatile i64, ptr %place, align 8
  %is = icmp eq i64 %value, %word
  br i1 %is, label %found, label %another
another:
  %m = add i64 %n, 1
  %more = icmp ult i64 %m, {MAX_BLOCKS}
  br i1 %more, label %loop, label %none
found:
  ret ptr %place
none:
  ret ptr null"""
    return function(module, "kp.find_word", "ptr", "ptr %first, i64 %word, i64 %stride", body)


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
