"""Registers and arguments of the probed code, where it isn't that of x86-64."""

import pytest

from front.cases import compile_text
from front.universe import NAMES, Universe
from kprobes.arch.registers import registers
from kprobes.compiler.back.bpf import BpfTarget, lower
from kprobes.compiler.back.disassemble import disassemble
from kprobes.compiler.front.abi import integer_indexes
from kprobes.compiler.front.compile import Surroundings, compile_handler
from kprobes.compiler.ir import usage
from kprobes.compiler.ir.interpret import Interpreter
from kprobes.compiler.ir.nodes import Load, ReadContext
from kprobes.compiler.ir.world import DryWorld, Frame
from kprobes.errors import CompileError
from kprobes.model.ctype import Float, Function, Int, Member, Parameter, Pointer, Struct, Void
from kprobes.model.probe import HandlerSource

LONG, INT, HUGE, WIDE = Int("long", 8, True), Int("int", 4, True), Int("__int128", 16, True), Int("long long", 8, True)
POINTER, SMALL, LARGE = Pointer(Void()), Struct("small", 16, False, 1), Struct("large", 64, False, 2)


class Members:
    """Types whose structs begin with two integers."""

    def member_names(self, struct):
        return ("a", "b")

    def member(self, struct, name):
        return Member(name, Int("u64", 8, False), 64 * "ab".index(name))


def indexes(arch, *types, returns=INT, kernel=True):
    function = Function("f", tuple(Parameter(f"p{at}", kind) for at, kind in enumerate(types)), returns)
    return integer_indexes(function, Members(), arch, kernel=kernel)


def test_arm64_passes_eight_arguments_in_registers():
    assert indexes("aarch64", *[LONG] * 10) == tuple(range(10))
    assert registers("aarch64").kernel_arguments == tuple(f"x{number}" for number in range(8))


def test_arm64_passes_the_address_of_a_large_struct_and_of_a_large_result_apart():
    assert indexes("aarch64", LARGE, INT) == (None, 1)
    assert indexes("aarch64", INT, returns=LARGE) == (0,)
    assert indexes("x86_64", INT, returns=LARGE) == (1,)


def test_arm64_begins_a_pair_with_an_even_register():
    assert indexes("aarch64", INT, HUGE, INT) == (0, None, 4)


def test_arm64_leaves_registers_alone_once_a_struct_did_not_fit():
    seven = [LONG] * 7
    assert indexes("aarch64", *seven, SMALL, INT) == (*range(7), None, None)
    assert indexes("x86_64", *[LONG] * 5, SMALL, INT) == (*range(5), None, 5)


class Floats(Members):
    """Types whose structs hold floating-point numbers alone."""

    def member(self, struct, name):
        return Member(name, Float("double", 8), 64 * "ab".index(name))


def test_a_struct_of_floats_takes_no_general_register_of_arm64():
    function = Function("f", tuple(Parameter("", kind) for kind in (SMALL, Struct("four", 32, False, 3), INT)), INT)
    assert integer_indexes(function, Floats(), "aarch64") == (None, None, 0)


def test_floats_take_no_general_register_of_arm64():
    types = Universe()
    assert integer_indexes(types.function("mixed"), types, "aarch64")[0] == 0
    assert integer_indexes(types.function("make_big"), types, "aarch64") == (0,)


def test_a_kernel_of_i386_passes_three_words_in_registers():
    assert registers("i386").kernel_arguments == ("ax", "dx", "cx")
    assert indexes("i386", POINTER, INT, POINTER, INT, POINTER) == (0, 1, 2, 3, 4)


def test_two_words_of_i386_need_two_registers():
    assert indexes("i386", INT, WIDE, INT) == (0, None, 3)
    assert indexes("i386", INT, INT, WIDE, INT) == (0, 1, None, None)


def test_a_program_of_i386_has_everything_on_the_stack():
    assert indexes("i386", INT, WIDE, INT, kernel=False) == (0, None, 3)
    assert registers("i386").arguments == ()


@pytest.mark.parametrize(
    ("arch", "spelt", "name"),
    [("aarch64", "x7", "x7"), ("aarch64", "lr", "x30"), ("aarch64", "ip", "pc"), ("i386", "eax", "ax")],
)
def test_registers_are_those_of_the_architecture_in_every_spelling(arch, spelt, name):
    made = compile_text(f"def h():\n    emit(regs.{spelt})\n", f"kprobe vfs_read {arch}")
    assert [node.name for node in usage.nodes_of(made) if isinstance(node, ReadContext)] == [name]
    assert made.arch == arch
    Interpreter(made, world := DryWorld()).enter(Frame(registers={name: 7}))
    assert world.records[0].endswith((7).to_bytes(8, "little"))


@pytest.mark.parametrize(("arch", "other"), [("aarch64", "di"), ("i386", "r8"), ("x86_64", "x0")])
def test_the_registers_of_another_architecture_are_refused_with_those_there_are(arch, other):
    with pytest.raises(CompileError, match=f"no register '{other}'") as caught:
        compile_text(f"def h():\n    emit(regs.{other})\n", f"kprobe vfs_read {arch}")
    assert arch in caught.value.hint or "did you mean" in caught.value.hint


def listing(text, arch, way, returns="", place="vfs_read"):
    made = compile_text(text, f"{'kretprobe' if returns else 'kprobe'} {place} {arch}")
    target = BpfTarget(entry_way=way, exit_way=returns, argument_count=4)
    return ["\n".join(disassemble(program)) for program in lower(made, target).programs]


def test_arguments_of_arm64_are_read_where_its_registers_lie():
    (code,) = listing("def h(file, count):\n    emit(count, regs.x1, regs.pc, arg(4))\n", "aarch64", "kprobe")
    assert [f"+{8 * place})" in code.replace(" ", "") for place in (2, 1, 32, 3)] == [True] * 4


def test_words_of_i386_are_of_four_bytes():
    (code,) = listing("def h():\n    emit(regs.ax, regs.dx)\n", "i386", "kprobe")
    plain = code.replace(" ", "")
    assert "*(u32*)(r" in plain
    assert "+24)" in plain
    assert "+8)" in plain


def test_the_fourth_argument_of_an_i386_kernel_lies_above_the_return_address():
    (code,) = listing("def h():\n    emit(arg(4))\n", "i386", "kprobe", place="untyped")
    plain = code.replace(" ", "")
    assert "+60)" in plain  # sp
    assert "+=4" in plain
    assert "r2=4" in plain


def test_a_pointer_of_four_bytes_is_read_as_such():
    node = Struct("node", 8, False, 1)
    kinds = {"next": Pointer(node, size=4), "value": INT}

    class Linked(Universe):
        def struct(self, name):
            return node

        def typename(self, name):
            return Pointer(node, size=4)

        def member(self, struct, name):
            return Member(name, kinds[name], 32 * list(kinds).index(name))

    text = "def h():\n    emit(value=cast(arg(1), 'struct node *').next.value)\n"
    source = HandlerSource("h", text, "script.py", 1, 0, NAMES)
    made = compile_handler(source, Surroundings("kprobe", Linked(), arch="i386"))
    assert [node.to.type.bits for node in usage.nodes_of(made) if isinstance(node, Load)] == [32, 32]


@pytest.mark.parametrize(("arch", "popped"), [("x86_64", "+= -8"), ("i386", "+= -4"), ("aarch64", "")])
def test_a_call_is_known_by_the_stack_pointer_that_it_had_at_its_entry(arch, popped):
    text = "def h():\n    start = now()\n    yield\n    emit(took=now() - start)\n"
    (leaving, _) = listing(text, arch, "kprobe", "kretprobe")
    assert popped in leaving
    if not popped:
        assert "+= -8" not in leaving.partition("call")[0]
