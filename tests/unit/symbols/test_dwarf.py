"""Types and functions out of debugging information, of programs that the compiler here builds in each of its ways."""

from __future__ import annotations

import contextlib
import subprocess

import pytest
from tests.unit.symbols.built import CPP, Built, C, build, built

from kprobes.errors import FormatError
from kprobes.model.ctype import Array, Enum, Float, Function, Int, Pointer, Struct, Void, format_ctype
from kprobes.symbols.dwarf.types import ObjectTypes

WAYS = {
    "dwarf 4": ("-gdwarf-4", "-O0"),
    "dwarf 5": ("-gdwarf-5", "-O2"),
    "dwarf 2": ("-gdwarf-2", "-gstrict-dwarf", "-O1"),
    "64-bit format": ("-gdwarf-5", "-gdwarf64", "-O1"),
    "compressed": ("-g", "-gz", "-O2"),
    "type units": ("-gdwarf-4", "-fdebug-types-section", "-O1"),
    "type units 5": ("-gdwarf-5", "-fdebug-types-section", "-O1"),
    "split": ("-gdwarf-5", "-gsplit-dwarf", "-O2"),
    "split 4": ("-gdwarf-4", "-gsplit-dwarf", "-O2"),
    "link-time": ("-g", "-O2", "-flto"),
}


METHODS = ("shop::Item::price", "shop::Item::copy", "shop::take", "main")


@pytest.fixture(scope="module", params=WAYS, ids=[name.replace(" ", "-") for name in WAYS])
def store(request, tmp_path_factory) -> Built:
    return built(tmp_path_factory.mktemp("store"), C, *WAYS[request.param])


@pytest.fixture(scope="module", params=("-gdwarf-4", "-gdwarf-5"))
def shop(request, tmp_path_factory) -> Built:
    return built(tmp_path_factory.mktemp("shop"), CPP, request.param, "-O1", "-std=c++17")


def _prototype(of: Built, name: str) -> Function:
    found = of.types.function_at(of.address(name))
    assert found is not None
    return found


def _text(function: Function) -> str:
    return ", ".join(f"{format_ctype(one.type)} {one.name}" for one in function.parameters)


def test_prototypes_have_names_and_types(store):
    work = _prototype(store, "work")
    assert _text(work) == "int k, struct inner by_value, long last"
    assert work.variadic
    assert format_ctype(work.returns) == "int"
    assert work.name == "work"


def test_a_function_without_parameters_returns_nothing(store):
    nothing = _prototype(store, "nothing")
    assert nothing.parameters == ()
    assert nothing.returns == Void()


def test_static_functions_of_one_name_are_told_apart_by_address(store):
    names = [name for name in _symbols(store) if name.startswith("same_name")]  # link-time optimisation renames them
    addresses = [address for name in set(names) for address in store.addresses(name)]
    found = [store.types.function_at(address) for address in addresses]
    assert {_text(one) for one in found if one} == {"struct item * mine", "int number"}


def test_what_goes_in_vector_registers_takes_no_integer_register(store):
    blend = _prototype(store, "blend")
    assert [one.name for one in blend.parameters] == ["colors", "exact", "at", "after"]
    assert isinstance(blend.parameters[0].type, Float)
    assert blend.parameters[0].type.size == 8
    assert blend.parameters[1].type == Float("long double", 16)


def test_an_address_that_is_no_entry_has_no_prototype(store):
    assert store.types.function_at(store.address("work") + 1) is None
    assert store.types.function_at(0) is None


def test_fields_are_where_the_compiler_put_them(store):
    item = store.types.struct("struct item")
    assert item is not None
    names = ["name", "flags", "mode", "neg", "parts", "color", "next", "visit", "big", "ready", "tail"]
    assert list(store.types.member_names(item)) == names
    places = {name: store.types.member(item, name) for name in names}
    assert [(m.bit_offset, m.bit_size) for m in places.values() if m] == [
        (0, 0), (64, 3), (67, 5), (72, 4), (96, 0), (608, 0), (640, 0), (704, 0), (768, 40), (808, 0), (816, 0),
    ]  # fmt: skip
    assert places["name"].type == Pointer(Int("char", 1, True, "char"))
    assert places["name"].type.const
    assert places["parts"].type == Array(Array(store.types.struct("struct inner"), 4), 2)
    assert places["tail"].type == Array(Int("char", 1, True, "char"), 0)
    assert places["ready"].type == Int("bool", 1, False, "bool")
    assert places["flags"].type == Int("unsigned int", 4, False)
    assert places["next"].type == Pointer(item)
    assert isinstance(places["visit"].type.target, Function)
    assert store.types.member(item, "nosuch") is None


def test_members_of_anonymous_unions_are_found(store):
    inner = store.types.struct("struct inner")
    assert inner is not None
    assert inner.size == 8
    assert list(store.types.member_names(inner)) == ["a", "b", "f"]
    member = store.types.member(inner, "b")
    assert (member.bit_offset, member.type) == (32, Int("int", 4, True))


def test_enumerations_have_their_sign_and_names(store):
    color = store.types.typename("enum color")
    assert isinstance(color, Enum)
    assert color.signed
    assert store.types.enumerators(color) == {1: "RED", -2: "GREEN", 300: "BLUE"}
    assert store.types.enumerator("GREEN") == -2
    wide = store.types.typename("enum wide")
    assert isinstance(wide, Enum)
    assert not wide.signed
    assert store.types.enumerators(wide) == {200: "NARROW", 0x80000000: "BROAD"}
    assert store.types.enumerator("PURPLE") is None


@pytest.mark.parametrize(
    ("spelling", "shown"),
    [
        ("count_t", "unsigned int"),
        ("struct item *", "struct item *"),
        ("const struct item **", "struct item **"),
        ("point_t *", "struct (anonymous) *"),
        ("struct inner[3]", "struct inner[3]"),
        ("char *", "char *"),
        ("u32", "unsigned int"),
        ("enum color", "enum color"),
    ],
)
def test_casts_name_types_as_c_does(store, spelling, shown):
    found = store.types.typename(spelling)
    assert found is not None
    assert format_ctype(found) == shown


@pytest.mark.parametrize(
    "spelling", ["item", "struct nosuch", "struct", "", "*", "nosuch_t", "union item", "a\0b", "é"]
)
def test_what_names_no_type_is_none(store, spelling):
    assert store.types.typename(spelling) is None


def test_a_struct_that_is_only_declared_here_is_found_where_it_is_defined(store):
    pointer = _prototype(store, "elsewhere") and _prototype(store, "main")
    opaque = store.types.struct("struct opaque")
    assert pointer is not None
    assert opaque is not None
    assert (opaque.size, list(store.types.member_names(opaque))) == (4, ["filled"])


def test_global_variables_have_types(store):
    assert store.types.variable("total") == Int("unsigned int", 4, False)
    assert store.types.variable("head") == Pointer(store.types.struct("struct item"))
    assert store.types.variable("nosuch") is None


def test_names_near_are_told(store):
    assert "struct item" in store.types.nearest_types("struct itm") or _prototype(store, "work") is None
    item = store.types.struct("struct item")
    assert store.types.nearest_members(item, "colour") == ("color",)


def test_declarations_read_as_the_source_does(store):
    assert store.types.declaration_at(store.address("work")) == "int work(int k, struct inner by_value, long last, ...)"
    expected = "int visit(struct item *item, const char *label, int n, double weight, struct opaque *o)"
    assert store.types.declaration_at(store.address("visit")) == expected
    assert store.types.declaration_at(store.address("nothing")) == "void nothing(void)"


# C++.


def test_methods_have_this_and_references_are_pointers(shop):
    price = _prototype(shop, "shop::Item::price")
    assert _text(price) == "struct shop::Item * this, struct shop::Item * other, int tax"
    assert price.name == "shop::Item::price"
    declaration = shop.types.declaration_at(shop.address("shop::Item::price"))
    assert declaration == "int shop::Item::price(const shop::Item *const this, const shop::Item &other, int tax)"


def test_members_of_base_classes_are_found(shop):
    item = shop.types.struct("shop::Item")
    assert item is not None
    names = list(shop.types.member_names(item))
    assert {"kind", "label", "part", "id"} <= set(names)
    assert "made" not in names  # static
    assert shop.types.member(item, "id").bit_offset == 64


def test_nested_names_are_found_with_their_scopes(shop):
    part = shop.types.typename("shop::Item::Part *")
    assert isinstance(part, Pointer)
    assert isinstance(part.target, Struct)
    assert part.target.name == "shop::Item::Part"
    assert shop.types.member(part.target, "weight").type == Int("long", 8, True)
    assert shop.types.struct("shop::Base").name == "shop::v2::Base"
    assert shop.types.typename("Item") is None


def test_scoped_enumerations_have_values(shop):
    kind = shop.types.typename("shop::Kind")
    assert kind == Enum("shop::Kind", 1, False, kind.key)
    assert shop.types.enumerators(kind) == {3: "Food", 200: "Tool"}
    assert shop.types.enumerator("Tool") == 200


def test_template_packs_have_no_names_that_python_cannot_say(shop):
    with_pack = next(s for s in _symbols(shop) if "count_all" in s)
    names = [one.name for one in _prototype(shop, with_pack).parameters]
    assert names[0] == "first"
    assert all(not name or name.isidentifier() for name in names)
    assert len({name for name in names if name}) == len([name for name in names if name])


def _symbols(of: Built) -> list[str]:
    from kprobes.symbols.elf import ElfFile
    from kprobes.symbols.elf_symbols import ElfSymbols

    with ElfFile(str(of.path)) as elf:
        return [symbol.name for symbol in ElfSymbols(elf).functions]


def test_classes_that_go_by_address_are_pointers(tmp_path):
    shop = built(tmp_path, CPP, "-gdwarf-5", "-O1", "-std=c++17")
    copy = _prototype(shop, "shop::Item::copy")
    assert _text(copy) == "struct shop::Item * , struct shop::Item * from, struct shop::Item::Part by_value"
    assert format_ctype(copy.returns) == "struct shop::Item *"
    take = _prototype(shop, "shop::take")
    assert [type(one.type) for one in take.parameters] == [Pointer, Pointer]


def test_what_debug_files_share_is_found(tmp_path):
    whole = built(tmp_path, CPP, "-g", "-O1", "-std=c++17")
    expected = {name: (_prototype(whole, name), whole.types.declaration_at(whole.address(name))) for name in METHODS}
    for name in ("first", "second"):
        (tmp_path / name).write_bytes(whole.path.read_bytes())
    common = tmp_path / "common.debug"
    subprocess.run(["dwz", "-m", str(common), "-M", str(common), "first", "second"], check=True, cwd=tmp_path)
    types = ObjectTypes(str(tmp_path / "first"))
    assert str(common) in types.files
    for name, (prototype, declaration) in expected.items():
        found = types.function_at(whole.address(name))
        assert found is not None
        assert _text(found) == _text(prototype)
        assert types.declaration_at(whole.address(name)) == declaration
    item = types.struct("shop::Item")
    assert types.member(item, "id").bit_offset == 64
    common.unlink()
    alone = ObjectTypes(str(tmp_path / "first"))
    with contextlib.suppress(FormatError):  # an answer with holes is fine, so is a refusal
        alone.function_at(whole.address("shop::Item::price"))


# What can't be read.


def test_a_file_without_debug_information_knows_no_types(tmp_path):
    program = build(tmp_path, C, "-O1")
    types = ObjectTypes(str(program))
    assert types.typename("struct item") is None
    assert types.function_at(0x1234) is None


def test_a_missing_split_file_leaves_the_rest(tmp_path):
    program = build(tmp_path, C, "-gdwarf-5", "-gsplit-dwarf", "-O1")
    for path in tmp_path.glob("*store-store.dwo"):
        path.unlink()
    types = ObjectTypes(str(program))
    assert types.typename("struct item *") is None
    assert types.struct("struct opaque").size == 4
    assert types.missing.endswith("store-store.dwo")


def test_split_files_of_another_build_are_not_read(tmp_path):
    flags = ("-gdwarf-5", "-gsplit-dwarf", "-O1")
    program = build(tmp_path, C, *flags)
    assert ObjectTypes(str(program)).struct("struct item") is not None
    kept = program.read_bytes()
    build(tmp_path, C, *flags, "-DCHANGED=1", "-O0")
    program.write_bytes(kept)
    assert ObjectTypes(str(program)).struct("struct item") is None


def test_what_compilers_do_not_unpack_here_says_what_to_do(tmp_path):
    program = build(tmp_path, C, "-g", "-O1")
    packed = tmp_path / "packed"
    done = subprocess.run(
        ["objcopy", "--compress-debug-sections=zstd", str(program), str(packed)], check=False, capture_output=True
    )
    if done.returncode:  # this binutils can't pack it either: the compression's number is written by hand
        subprocess.run(["objcopy", "--compress-debug-sections=zlib", str(program), str(packed)], check=True)
        data = packed.read_bytes().replace(b"\1\0\0\0\0\0\0\0", b"\2\0\0\0\0\0\0\0")
        packed.write_bytes(data)
    with pytest.raises(FormatError, match="zstd") as caught:
        ObjectTypes(str(packed)).typename("struct item")
    assert "objcopy --decompress" in caught.value.hint
