import pytest

from kprobes.errors import DefinitionError, UsageError
from kprobes.grammar.events import parse
from kprobes.grammar.facts import KERNELS, dialect
from kprobes.model.definition import (
    AddressPlace,
    BitField,
    Comm,
    Definition,
    Deletion,
    Field,
    FileAddress,
    FilePlace,
    FunctionArgument,
    Immediate,
    KernelPlace,
    Memory,
    Parameter,
    Register,
    ReturnValue,
    Stack,
    StackWord,
    SymbolAddress,
    Text,
)


def one(text, **options):
    found = parse(f"p vfs_read a={text}", **options)
    return found.arguments[0]


def refusal(line, kernel="6.1", **options):
    with pytest.raises(DefinitionError) as caught:
        parse(line, kernel, **options)
    return caught.value


def test_definition_has_its_parts():
    found = parse("p:mine/open do_sys_openat2+8 dfd=%di filename=+0(%si):string")
    assert found == Definition(
        is_return=False,
        group="mine",
        event="open",
        place=KernelPlace("do_sys_openat2", 8),
        arguments=found.arguments,
    )
    assert [argument.name for argument in found.arguments] == ["dfd", "filename"]
    assert not found.is_user


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("%di", Register("di")),
        ("$stack", Stack()),
        ("$stack3", StackWord(3)),
        ("$comm", Comm()),
        ("$arg2", FunctionArgument(1)),
        ("\\0x10", Immediate(16)),
        ("\\-1", Immediate(2**64 - 1)),
        ('\\"text"', Text("text")),
        ("@0x1000", Memory(Immediate(4096))),
        ("@jiffies-8", Memory(SymbolAddress("jiffies", -8))),
        ("+8(%si)", Memory(Register("si"), 8)),
        ("-u0x10(+0($stack))", Memory(Memory(Stack(), 0), -16, user=True)),
    ],
)
def test_term(text, term):
    assert one(text).term == term


def test_parameters_have_fields_where_types_are_not_known():
    found = one("file->f_path.dentry->d_parent", kernel="6.12")
    assert found.term == Field(Field(Parameter("file"), "f_path.dentry"), "d_parent")


def test_uprobe_has_its_place_and_counter():
    found = parse("p /bin/cat:0x1234(0x40)", kind="uprobe")
    assert found.place == FilePlace("/bin/cat", 0x1234, 0x40)
    assert found.text == "p:uprobes/p_cat_0x1234 /bin/cat:0x0000000000001234(0x40)"
    assert parse("p /bin/cat:8 @+16", kind="uprobe").arguments[0].term == Memory(FileAddress(16))
    assert parse("p /bin/cat:8%return $retval", kind="uprobe").arguments[0].term == ReturnValue()


def test_type_array_and_bit_field():
    found = one("+0(%si):string[4]")
    assert (found.type.name, found.type.string, found.count) == ("string", True, 4)
    assert one("%ax").type.name == "x64"
    assert one("%ax:s16").type.signed
    assert one("%ax:b3@4/32").bits == BitField(3, 4)
    assert one("%ax:b3@4/32").type.size == 4


def test_maxactive_and_default_names_are_as_the_kernel_lists_them():
    assert parse("r20:one vfs_read").text == "r20:kprobes/one vfs_read"
    assert parse("r vfs_read").text == "r10:kprobes/r_vfs_read_0 vfs_read"
    assert parse("p ext4:ext4_sync.part.0+16").event == "p_ext4_ext4_sync_part_0_16"
    assert parse("p 0xffffffff81000000").place == AddressPlace(0xFFFFFFFF81000000)


def test_deletion_is_parsed():
    assert parse("-:mine/one vfs_read a=%ax") == Deletion("mine", "one", ("vfs_read", "a=%ax"))
    assert parse("-:one") == Deletion(None, "one")


def test_line_without_words_means_nothing():
    assert parse("") is None
    assert parse("  # p vfs_read") is None


@pytest.mark.parametrize("kernel", KERNELS)
def test_refusal_has_message_column_and_errno(kernel):
    found = refusal("p:one   vfs_read a=%di b=+0(%foo)", kernel)
    assert (found.code, found.message, found.errno) == ("BAD_REG_NAME", "Invalid register name", 22)
    assert found.command[found.column :] == "%foo)"
    assert found.hint
    assert str(found).splitlines()[-1] == " " * (4 + found.column) + "^"


def test_refusal_without_a_message_has_the_errno_alone():
    found = refusal("vfs_read")
    assert (found.message, found.column, found.errno) == ("", None, 22)
    assert found.what == "Invalid argument"


def test_caret_stands_behind_the_line_where_an_argument_is_missing():
    from kprobes.grammar.events import Events

    events = Events("6.1")
    assert events.check("p:one vfs_read a=%ax").ok
    error = events.check("p:one vfs_write").error
    assert (error.code, error.column) == ("DIFF_ARG_TYPE", len("p:one vfs_write") + 1)


def test_column_of_5_10_wraps_at_256_and_its_log_cuts_the_command():
    line = f"p vfs_read {' '.join(f'a{number}=%ax' for number in range(40))} b=%foo"
    found = refusal(line, "5.10")
    assert found.column == line.index("%foo") % 256
    assert len(found.command) == 243
    assert refusal(line, "6.1").column == line.index("%foo")


def test_columns_count_bytes():
    found = refusal("p \u00e9t\u00e9 %foo")
    assert found.command == "p \u00e9t\u00e9 %foo"
    assert found.column == len("p \u00e9t\u00e9 ".encode())
    assert str(found).splitlines()[-1] == " " * (4 + len("p \u00e9t\u00e9 ")) + "^"


def test_unknown_kernel_or_kind_is_the_users_mistake():
    for kernel in ("4.19", "new", "6"):
        with pytest.raises(UsageError):
            parse("p vfs_read", kernel)
    with pytest.raises(UsageError):
        parse("p vfs_read", kind="fprobe")


def test_kernel_between_two_known_ones_is_taken_for_the_lower():
    between = dialect("6.6.30-generic")
    assert (between.name, between.asked, between.exact) == ("6.1", "6.6", False)
    assert "6.6" in between.note
    assert dialect("6.12").note == ""
    assert dialect("9.0").name == KERNELS[-1]
