import contextlib
import struct
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kprobes.errors import FormatError, KprobesError
from kprobes.model.ctype import Array, Enum, Float, Int, Pointer, Struct, Void, format_ctype, sizeof
from kprobes.symbols.btf import HEADER, MAGIC, Btf, Kind, load_btf
from kprobes.symbols.btf_types import KernelTypes

KINDS = (Path(__file__).parents[2] / "golden" / "symbols" / "kinds.btf").read_bytes()
INT32 = Int("int", 4, True)
CHAR = Int("char", 1, True, "char")


@pytest.fixture(scope="module")
def vmlinux(golden):
    return KernelTypes(Btf((golden / "vmlinux-6.18.btf").read_bytes()))


@pytest.fixture(scope="module")
def kinds(golden):
    return KernelTypes(Btf((golden / "kinds.btf").read_bytes()))


def member_type(types, struct_name, *names):
    found = types.struct(struct_name)
    for name in names:
        found = types.member(found.target if isinstance(found, Pointer) else found, name).type
    return found


def test_prototype_has_names_and_types_with_typedefs_resolved(vmlinux):
    function = vmlinux.function("vfs_read")
    assert [p.name for p in function.parameters] == ["file", "buf", "count", "pos"]
    assert format_ctype(function) == "long (*)(struct file *, char *, unsigned long, long long *)"
    assert vmlinux.function_id("vfs_read") == function.key > 0
    assert vmlinux.function("vfs_raed") is None
    assert vmlinux.function_id("vfs_raed") == 0


def test_declaration_keeps_typedefs_and_qualifiers(vmlinux, kinds):
    assert (
        vmlinux.declaration("vfs_read") == "ssize_t vfs_read(struct file *file, char *buf, size_t count, loff_t *pos)"
    )
    assert vmlinux.declaration("_printk") == "int _printk(const char *fmt, ...)"
    assert vmlinux.declaration("schedule") == "void schedule(void)"
    assert kinds.declaration("tagged") == "int tagged(struct holder *holder, const char __user *buffer, int many)"
    assert kinds.declaration("nothing") is None


def test_variadic_function_is_marked_and_the_dots_are_no_parameter(vmlinux):
    function = vmlinux.function("_printk")
    assert function.variadic
    assert [p.name for p in function.parameters] == ["fmt"]


def test_chain_of_members_gives_the_path_of_an_open_file(vmlinux):
    name = member_type(vmlinux, "file", "f_path", "dentry", "d_name", "name")
    assert name == Pointer(Int("unsigned char", 1, False))


def test_member_of_an_anonymous_union_counts_from_the_outer_struct(kinds, vmlinux):
    bits = kinds.struct("bits")
    assert kinds.member(bits, "deeper").bit_offset == 64 + 16
    assert kinds.member(bits, "other").bit_offset == 64
    qstr = vmlinux.struct("qstr")
    assert vmlinux.member(qstr, "len").bit_offset == 32
    assert list(kinds.member_names(bits)) == ["low", "middle", "high", "count", "flexible", "other", "deep", "deeper"]


def test_bit_fields_have_their_width(kinds):
    bits = kinds.struct("bits")
    places = {n: (kinds.member(bits, n).bit_offset, kinds.member(bits, n).bit_size) for n in ("low", "middle", "high")}
    assert places == {"low": (0, 3), "middle": (3, 7), "high": (10, 40)}
    assert kinds.member(bits, "count").bit_size == 0


@pytest.mark.parametrize(
    ("name", "ctype"),
    [
        ("text", Pointer(CHAR, user=True)),
        ("state", INT32),
        ("matrix", Array(Array(Int("unsigned char", 1, False), 5), 3)),
        ("yes", Int("bool", 1, False, "bool")),
        ("huge", Int("__int128", 16, True)),
        ("real", Float("double", 8)),
        ("fixed", Pointer(CHAR)),
        ("never", Pointer(Struct("only_declared", 0, True, 5))),
    ],
)
def test_each_kind_of_member_type(kinds, name, ctype):
    assert member_type(kinds, "holder", name) == ctype


def test_function_pointers_are_told_to_a_bounded_depth(kinds):
    assert format_ctype(member_type(kinds, "holder", "call")) == "int (*)(struct holder *, void (*)(void (*)() *) *) *"


def test_struct_only_declared_has_no_members_and_no_size(kinds):
    declared = kinds.struct("union only_declared")
    assert (declared.size, declared.is_union) == (0, True)
    assert kinds.member(declared, "x") is None
    assert kinds.member_names(declared) == []


@pytest.mark.parametrize(
    ("spelling", "shown"),
    [
        ("struct dentry *", "struct dentry *"),
        ("struct  dentry**", "struct dentry **"),
        ("const struct dentry *", "struct dentry *"),
        ("u32", "unsigned int"),
        ("u64", "unsigned long long"),
        ("size_t", "unsigned long"),
        ("unsigned", "unsigned int"),
        ("long unsigned int", "unsigned long"),
        ("unsigned long long", "unsigned long long"),
        ("pid_t", "int"),
        ("gfp_t", "unsigned int"),
        ("char [16]", "char[16]"),
        ("void *", "void *"),
        ("enum pid_type", "enum pid_type"),
        ("atomic_t", "struct (anonymous)"),
        ("bool", "bool"),
    ],
)
def test_type_is_found_by_its_c_spelling(vmlinux, spelling, shown):
    assert format_ctype(vmlinux.typename(spelling)) == shown


@pytest.mark.parametrize(
    "spelling", ["struct nothing", "nothing_t", "", "struct", "*", "char [", "a b c d", "é *", "int\0"]
)
def test_unknown_spelling_is_no_type(vmlinux, spelling):
    assert vmlinux.typename(spelling) is None


def test_user_pointer_can_be_spelt(vmlinux):
    assert vmlinux.typename("const char __user *") == Pointer(CHAR, user=True)


def test_enumerators_have_signed_and_64_bit_values(vmlinux):
    assert vmlinux.enumerator("PIDTYPE_PGID") == 2
    assert vmlinux.enumerator("RPM_INVALID") == -1
    assert vmlinux.enumerator("PERF_CONTEXT_HV") == (1 << 64) - 32
    assert vmlinux.enumerator("PIDTYPE") is None
    pid_type = vmlinux.typename("enum pid_type")
    assert isinstance(pid_type, Enum)
    assert vmlinux.enumerators(pid_type)[2] == "PIDTYPE_PGID"
    assert vmlinux.enumerators(vmlinux.typename("enum rpm_status"))[-1] == "RPM_INVALID"


def test_misspelt_types_and_members_get_the_nearest(vmlinux):
    assert "struct dentry" in vmlinux.nearest_types("struct dentri *")
    assert "f_path" in vmlinux.nearest_members(vmlinux.struct("file"), "f_pth")
    assert "vfs_read" in vmlinux.nearest_functions("vfs_raed")


# Split BTF: a module's blob continues the ids and strings of the kernel's.


def blob(types, strings):
    body = b"".join(types)
    return HEADER.pack(MAGIC, 1, 0, HEADER.size, 0, len(body), len(body), len(strings)) + body + strings


def entry(name, kind, value, *words, vlen=0, flag=0):
    return struct.pack(f"<III{len(words)}I", name, flag << 31 | kind << 24 | vlen, value, *words)


@pytest.fixture
def split(golden):
    """A module with `int ext4_probe(struct dentry *dentry, struct own *own)`, and `struct own { int size; }`."""
    base = Btf((golden / "vmlinux-6.18.btf").read_bytes())
    dentry = next(base.named("dentry", frozenset({Kind.STRUCT}))).id
    integer = next(base.named("int", frozenset({Kind.INT}))).id
    size = next(base._string_offsets("size"), None)
    start, first = base.strings_end, base.count
    strings = b"\0ext4_probe\0own\0dentry_\0size_\0"
    at = {n: start + strings.index(b"\0" + n.encode() + b"\0") + 1 for n in ("ext4_probe", "own", "dentry_", "size_")}
    types = [
        entry(0, Kind.PTR, dentry),
        entry(at["own"], Kind.STRUCT, 4, at["size_"], integer, 0, vlen=1),
        entry(0, Kind.PTR, first + 1),
        entry(0, Kind.FUNC_PROTO, integer, at["dentry_"], first, at["own"], first + 2, vlen=2),
        entry(at["ext4_probe"], Kind.FUNC, first + 3),
    ]
    assert size is None or size < start
    module = Btf(blob(types, strings), base=base)
    return KernelTypes(base, ["ext4", "other"], {"ext4": module}.get)


def test_function_of_a_module_is_found_with_types_of_the_kernel(split):
    function = split.function("ext4_probe")
    assert function.module == "ext4"
    assert format_ctype(function) == "int (*)(struct dentry *, struct own *)"
    dentry = function.parameters[0].type.target
    assert dentry == split.struct("dentry")
    assert split.member(dentry, "d_name").type.name == "qstr"


def test_struct_of_a_module_has_its_members(split):
    own = split.function("ext4:ext4_probe").parameters[1].type.target
    assert own == split.struct("own")
    assert split.member(own, "size_").type == INT32


def test_module_given_limits_where_a_function_is_looked_for(split):
    assert split.function("vfs_read", "ext4") is None
    assert split.function("vfs_read", "").name == "vfs_read"
    assert split.function("ext4_probe", "") is None
    assert split.function_id("ext4_probe", "ext4") == split.function("ext4_probe").key


# The file on disk.


def test_kept_copy_answers_like_the_original(golden, own_cache):
    path = str(golden / "vmlinux-6.18.btf")
    first = KernelTypes(load_btf(path, key="abc"))
    assert [p.name for p in own_cache.iterdir()] == ["btf-abc"]
    again = KernelTypes(load_btf("/does/not/exist", key="abc"))
    assert first.function("vfs_read") == again.function("vfs_read")
    assert first.member(first.struct("dentry"), "d_name") == again.member(again.struct("dentry"), "d_name")


@pytest.mark.parametrize("damage", ["empty", "cut", "header", "table"])
def test_damaged_copy_is_made_anew(golden, own_cache, damage):
    path = str(golden / "vmlinux-6.18.btf")
    load_btf(path, key="abc")
    copy = own_cache / "btf-abc"
    whole = copy.read_bytes()
    spoilt = {
        "empty": b"",
        "cut": whole[:-100],
        "header": b"\xff" * 24 + whole[24:],
        "table": whole[:100] + b"\xff\xff" + whole[102:],
    }[damage]
    copy.write_bytes(spoilt)
    assert KernelTypes(load_btf(path, key="abc")).function("vfs_read")
    assert copy.read_bytes() == whole


def test_key_that_is_no_plain_word_is_not_used_as_a_file_name(golden, own_cache):
    load_btf(str(golden / "kinds.btf"), key="../../evil")
    assert not own_cache.exists() or not list(own_cache.iterdir())


# Hostile input.


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "shorter than its header"),
        (b"\xeb\x9f\x01\x00" + bytes(20), "other byte order"),
        (b"\x7fELF" + bytes(20), "not BTF"),
        (HEADER.pack(MAGIC, 2, 0, 24, 0, 0, 0, 0), "unknown version"),
        (HEADER.pack(MAGIC, 1, 0, 24, 0, 100, 100, 1), "beyond the end"),
        (blob([struct.pack("<II", 0, 4 << 24)], b"\0"), "cut off"),
        (blob([entry(0, 31, 0)], b"\0"), "unknown kind"),
        (blob([], b"\0abc"), "no end"),
    ],
)
def test_malformed_blob_is_refused_with_the_reason(data, message):
    with pytest.raises(FormatError, match=message):
        Btf(data)


def test_circle_of_typedefs_ends():
    types = KernelTypes(Btf(blob([entry(1, Kind.TYPEDEF, 2), entry(0, Kind.CONST, 1)], b"\0loop\0")))
    with pytest.raises(FormatError, match="nested more than"):
        types.typename("loop")


def test_circle_of_anonymous_structs_ends():
    data = blob([entry(1, Kind.STRUCT, 8, 0, 1, 0, 0, 1, 0, vlen=2)], b"\0s\0")
    types = KernelTypes(Btf(data))
    with pytest.raises(FormatError, match="anonymous members"):
        types.member_names(types.struct("s"))


def test_prototypes_of_prototypes_do_not_multiply():
    proto = entry(0, Kind.FUNC_PROTO, 0, *[0x1, 2] * 100, vlen=100)
    data = blob([entry(1, Kind.FUNC, 3), entry(0, Kind.PTR, 3), proto], b"\0f\0")
    types = KernelTypes(Btf(data))
    assert len(types.function("f").parameters) == 100
    assert types.declaration("f").count("...") <= 64**2


def test_pointer_to_nothing_known_is_void(vmlinux):
    assert KernelTypes(Btf(blob([entry(1, Kind.TYPEDEF, 2), entry(0, Kind.PTR, 0)], b"\0p\0"))).typename(
        "p"
    ) == Pointer(Void())


def exercise(data):
    types = KernelTypes(Btf(data))
    for name in ("tagged", "caller"):
        types.function(name)
        types.declaration(name)
    for name in ("holder", "bits", "later"):
        found = types.struct(name)
        for member in types.member_names(found) if found else ():
            types.member(found, member)
    types.typename("enum small")
    types.enumerator("TWELVE")
    types.nearest_types("struct hodler")


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 1445), st.integers(0, 255)), min_size=1, max_size=6))
@example([(27, 0xFF)])
def test_scribbled_blob_gives_an_error_or_an_answer(edits):
    data = bytearray(KINDS)
    for at, value in edits:
        data[at % len(data)] = value
    with contextlib.suppress(KprobesError):
        exercise(bytes(data))


def test_pointers_have_the_size_of_a_long():
    """`struct s { struct s *next; long unsigned int n; }` of a 32-bit kernel."""
    strings = b"\0long unsigned int\0s\0next\0n\0"
    at = {name: strings.index(b"\0" + name + b"\0") + 1 for name in (b"long unsigned int", b"s", b"next", b"n")}
    word = entry(at[b"long unsigned int"], Kind.INT, 4, 32)
    node = entry(at[b"s"], Kind.STRUCT, 8, at[b"next"], 3, 0, at[b"n"], 1, 32, vlen=2)
    types = KernelTypes(Btf(blob([word, node, entry(0, Kind.PTR, 2)], strings)))
    struct = types.struct("s")
    assert sizeof(types.member(struct, "next").type) == 4
    assert types.member(struct, "n").bit_offset == 32
    assert sizeof(types.typename("unsigned long")) == sizeof(types.typename("struct s *")) == 4
    assert sizeof(types.typename("u64")) == 8


def test_pointers_of_this_kernel_have_eight_bytes(vmlinux):
    assert sizeof(vmlinux.member(vmlinux.struct("file"), "f_op").type) == 8
