"""Functions in LLVM text that handlers call: who the thread is, and copies of bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kprobes.model.shared import BLOCK_PID, BLOCK_SELF, MAX_BLOCKS

if TYPE_CHECKING:
    from kprobes.compiler.back.text import ModuleText

SECTION = "handler"
ATTRIBUTES = 'nounwind noredzone "no-builtins" "no-jump-tables"="true" '
_SYS_GETPID, _SYS_GETTID = 39, 186
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
