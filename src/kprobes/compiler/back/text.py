"""Writes LLVM assembly as text: a module, its functions, and the debug metadata that ties code to handler lines.

Text is several times quicker than building the same module through llvmlite's object model.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kprobes.compiler.ir.nodes import IntType, Place


def llvm_type(kind: IntType) -> str:
    """Return LLVM's name of an integer type: `i1` to `i64`."""
    return f"i{kind.bits}"


def literal(value: int, bits: int) -> str:
    """Return *value* wrapped to *bits* as LLVM spells it."""
    if bits == 1:
        return "true" if value & 1 else "false"
    value &= (1 << bits) - 1
    return str(value - (1 << bits) if value >> (bits - 1) else value)


class ModuleText:
    """A module being written: external names, functions, metadata."""

    unrolled = 256  # bytes that may be moved or zeroed without a loop

    def __init__(self, triple: str, layout: str) -> None:
        self._head = [f'target datalayout = "{layout}"', f'target triple = "{triple}"']
        self._externals: dict[str, str] = {}
        self._functions: list[FunctionText] = []
        self._metadata = [
            '!{i32 2, !"Debug Info Version", i32 3}',
            '!{i32 7, !"Dwarf Version", i32 4}',
            "distinct !DICompileUnit(language: DW_LANG_C99, file: !3, isOptimized: true, emissionKind: LineTablesOnly)",
            # An empty `source` keeps LLVM from looking for a file of that name.
            '!DIFile(filename: "handler", directory: "", source: "")',
            "!DISubroutineType(types: !{null})",
        ]

    def external(self, name: str, *, may_be_zero: bool = False) -> str:
        """Declare the outside symbol *name*; return its operand. *may_be_zero*: its address is a number like any."""
        if may_be_zero:
            self._externals[name] = f'@"{name}" = extern_weak global i8, align 1'
        else:
            self._externals[name] = f'@"{name}" = external global i8, align 8'
        return f'@"{name}"'

    def declare(self, name: str, prototype: str) -> str:
        """Declare the function or intrinsic *name*; *prototype* has `{}` in its place."""
        self._externals[name] = "declare " + prototype.format(f"@{name}")
        return f"@{name}"

    def include(self, name: str, text: str) -> str:
        """Add the function or value *name*, whose whole *text* is given; return its operand."""
        self._externals[name] = text
        return f"@{name}"

    def metadata(self, text: str) -> int:
        """Add a metadata node; return its number."""
        self._metadata.append(text)
        return len(self._metadata) - 1

    def function(self, name: str, section: str, parameters: str = "ptr %ctx", attributes: str = "") -> FunctionText:
        """Begin the function *name* (returning i64) in a section of its own."""
        scope = self.metadata(
            f'distinct !DISubprogram(name: "{name}", file: !3, line: 1, type: !4, unit: !2, '
            "spFlags: DISPFlagDefinition | DISPFlagOptimized)"
        )
        function = FunctionText(
            self, f'define i64 @"{name}"({parameters}) {attributes}section "{section}" !dbg !{scope}', scope
        )
        self._functions.append(function)
        return function

    def drop(self, function: FunctionText) -> None:
        """Forget a function."""
        self._functions.remove(function)

    def finish(self) -> str:
        """Return the whole module."""
        parts = [*self._head, *self._externals.values()]
        parts += [function.finish() for function in self._functions]
        parts += ["!llvm.module.flags = !{!0, !1}", "!llvm.dbg.cu = !{!2}"]
        parts += [f"!{number} = {text}" for number, text in enumerate(self._metadata)]
        return "\n".join(parts) + "\n"


class FunctionText:
    """A function being written, block by block. Every instruction gets the place that was set last."""

    def __init__(self, module: ModuleText, head: str, scope: int) -> None:
        self.module = module
        self._head = head
        self._scope = scope
        self._allocas: list[str] = []
        self._fixed: list[str] = []
        self._fixed_at = 0
        self._lines: list[str] = []
        self._locations: dict[tuple[int, int], int] = {}
        self._debug = ""
        self._names = 0
        self.volatile: set[str] = set()  # pointers whose memory is to be loaded and stored each time
        self.open = True  # the current block has no terminator yet
        self.block = "start"

    def at(self, place: Place) -> None:
        """Let the following instructions come from *place*."""
        key = (place.line, place.column + 1)
        number = self._locations.get(key)
        if number is None:
            number = self.module.metadata(f"!DILocation(line: {key[0]}, column: {key[1]}, scope: !{self._scope})")
            self._locations[key] = number
        self._debug = f", !dbg !{number}"

    def do(self, instruction: str) -> None:
        """Append an instruction without result."""
        self._lines.append(f"  {instruction}{self._debug}")

    def let(self, expression: str) -> str:
        """Append an instruction with a result; return the result's operand."""
        self._names += 1
        name = f"%t{self._names}"
        self.do(f"{name} = {expression}")
        return name

    def alloca(self, size: int) -> str:
        """Reserve *size* bytes of stack, rounded up to 8; return the pointer."""
        self._names += 1
        name = f"%t{self._names}"
        self._allocas.append(f"  {name} = alloca [{-(-size // 8)} x i64], align 8")
        return name

    def variable(self, bits: int) -> str:
        """Reserve an integer that is zero at first; return the pointer."""
        self._names += 1
        name = f"%t{self._names}"
        self._allocas += [f"  {name} = alloca i{bits}, align 8", f"  store i{bits} 0, ptr {name}, align 8"]
        return name

    def label(self, hint: str) -> str:
        """Return a new label."""
        self._names += 1
        return f"{hint}.{self._names}"

    def start(self, label: str) -> None:
        """Begin the block *label*, falling into it where the one before is open."""
        if self.open:
            self.jump(label)
        self._lines.append(f'"{label}":')
        self.open = True
        self.block = label

    def barrier(self) -> None:
        """Keep LLVM from moving reads and writes across this point."""
        self.do('call void asm sideeffect "", "~{memory}"()')

    def jump(self, label: str) -> None:
        """End the block by going to *label*."""
        self.do(f'br label %"{label}"')
        self.open = False

    def branch(self, condition: str, yes: str, no: str) -> None:
        """End the block by going to *yes* or *no*."""
        self.do(f'br i1 {condition}, label %"{yes}", label %"{no}"')
        self.open = False

    def unlikely(self, condition: str, yes: str, no: str) -> None:
        """Branch where *yes* is the rare way."""
        weights = self.module.metadata('!{!"branch_weights", i32 1, i32 2000}')
        self.do(f'br i1 {condition}, label %"{yes}", label %"{no}", !prof !{weights}')
        self.open = False

    def give_back(self, value: str) -> None:
        """End the block by returning *value*."""
        self.do(f"ret i64 {value}")
        self.open = False

    def phi(self, kind: str, ways: list[tuple[str, str]]) -> str:
        """Return what came in from each (value, block)."""
        return self.let(f"phi {kind} " + ", ".join(f'[ {value}, %"{block}" ]' for value, block in ways))

    def offset(self, pointer: str, distance: int | str) -> str:
        """Return *pointer* plus *distance* bytes (a number or an i64 operand)."""
        if distance in (0, "0"):
            return pointer
        return self.let(f"getelementptr i8, ptr {pointer}, i64 {distance}")

    def fixed_offset(self, pointer: str, distance: int) -> str:
        """Return *pointer* plus *distance* as an address that holds in the whole function from `fix` on."""
        self._names += 1
        name = f"%t{self._names}"
        self._fixed.append(f"  {name} = getelementptr i8, ptr {pointer}, i64 {distance}")
        return name

    def fix(self) -> None:
        """Let the addresses of `fixed_offset` be made here."""
        self._fixed_at = len(self._lines)

    def load(self, bits: int, pointer: str, align: int = 0) -> str:
        """Return the integer of *bits* at *pointer*; truth values are bytes in memory."""
        width = max(bits, 8)
        value = self.let(f"load {self._how(pointer)}i{width}, ptr {pointer}, align {align or width // 8}")
        return self.let(f"trunc i8 {value} to i1") if bits == 1 else value

    def store(self, bits: int, value: str, pointer: str, align: int = 0) -> None:
        """Store the integer *value* of *bits* at *pointer*."""
        if bits == 1:
            value, bits = self.let(f"zext i1 {value} to i8"), 8
        self.do(f"store {self._how(pointer)}i{bits} {value}, ptr {pointer}, align {align or bits // 8}")

    def _how(self, pointer: str) -> str:
        return "volatile " if pointer in self.volatile else ""

    def finish(self) -> str:
        """Return the function's text."""
        lines = [*self._lines[: self._fixed_at], *self._fixed, *self._lines[self._fixed_at :]]
        return "\n".join([f"{self._head} {{", "start:", *self._allocas, *lines, "}"])
