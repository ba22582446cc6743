"""Places by source line and inlined functions, in programs that the compiler here builds."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.symbols.built import CPP, PROGRAMS, C, build

from kprobes.errors import AmbiguousSymbolError, SymbolNotFoundError, UnprobeableError, UsageError
from kprobes.symbols.dwarf.places import find_line, inlined_at, line_at
from kprobes.symbols.dwarf.program import DebugProgram
from kprobes.symbols.file import resolve_file
from kprobes.symbols.objects import MachineObjects
from kprobes.symbols.source_lines import inlined_copies, prototype, source_line

WAYS = {
    "dwarf 4": ("-gdwarf-4", "-O1"),
    "dwarf 5": ("-gdwarf-5", "-O1"),
    "dwarf 2": ("-gdwarf-2", "-gstrict-dwarf", "-O1"),
    "64-bit format": ("-gdwarf-5", "-gdwarf64", "-O1"),
    "split": ("-gdwarf-5", "-gsplit-dwarf", "-O1"),
    "link-time": ("-g", "-O1", "-flto"),
}
LINES = (PROGRAMS / "store.c").read_text().splitlines()


def line_of(text: str) -> int:
    """Return the number of the line in store.c that holds *text*."""
    (number,) = [number for number, line in enumerate(LINES, 1) if text in line]
    return number


@pytest.fixture(scope="module", params=WAYS, ids=[name.replace(" ", "-") for name in WAYS])
def store(request, tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("store"), C, *WAYS[request.param])


def sites(program: Path, place: str) -> list[tuple[str, int]]:
    found = resolve_file(f"{program}@{place}", MachineObjects())
    return [(one.site.symbol, one.site.offset) for one in found.found]


def test_the_line_of_a_function_is_its_entry(store):
    assert ("work", 0) in sites(store, f"store.c:{line_of('int work(int k') + 1}")


def test_a_line_in_a_function_is_behind_its_entry(store):
    ((symbol, offset), *_) = sites(store, f"store.c:{line_of('twice(by_value.a)')}")
    assert symbol == "work"
    assert offset > 0


def test_an_inlined_line_has_each_of_its_copies(store):
    found = sites(store, f"store.c:{line_of('return x * 2')}")
    assert len(found) >= 2
    assert {symbol for symbol, _ in found} == {"work"}


def test_a_line_of_a_header_is_found_where_it_was_included(store):
    number = (PROGRAMS / "store.h").read_text().splitlines().index("    return x + 40;") + 1
    assert {symbol for symbol, _ in sites(store, f"store.h:{number}")} == {"elsewhere"}


def test_files_are_named_by_the_end_of_their_path_or_all_of_it(store):
    number = line_of("int work(int k") + 1
    by_name = sites(store, f"store.c:{number}")
    assert sites(store, f"programs/store.c:{number}") == by_name
    assert sites(store, f"{PROGRAMS}/store.c:{number}") == by_name
    with pytest.raises(SymbolNotFoundError):
        sites(store, f"/elsewhere/store.c:{number}")
    with pytest.raises(SymbolNotFoundError):
        sites(store, f"re.c:{number}")


def test_a_line_without_code_names_those_near(store):
    with pytest.raises(UnprobeableError, match="no code was made of that line") as caught:
        sites(store, f"store.c:{line_of('struct opaque;')}")
    near = [int(word) for word in caught.value.hint.rpartition(": ")[2].split(", ")]
    assert len(near) == 3
    assert all(sites(store, f"store.c:{number}") for number in near)


def test_an_unknown_file_is_told_with_what_comes_near(store):
    with pytest.raises(SymbolNotFoundError, match=r"no source file 'stores\.c'") as caught:
        sites(store, "stores.c:3")
    assert caught.value.nearest[0] == "store.c"


def test_two_files_of_a_name_are_told_apart(tmp_path):
    for directory in ("one", "two"):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "part.c").write_text(f"int in_{directory}(int x)\n{{\n    return x;\n}}\n")
    (tmp_path / "main.c").write_text("int main(void) { return 0; }\n")
    program = build(tmp_path, tuple(str(tmp_path / one) for one in ("main.c", "one/part.c", "two/part.c")), "-g")
    with pytest.raises(AmbiguousSymbolError) as caught:
        sites(program, "part.c:3")
    assert all("/part.c:3" in one for one in caught.value.candidates)
    assert [symbol for symbol, _ in sites(program, "two/part.c:3")] == ["in_two"]


def test_a_program_without_debug_information_says_what_is_missing(tmp_path):
    program = build(tmp_path, C, "-O1")
    with pytest.raises(SymbolNotFoundError) as caught:
        sites(program, "store.c:40")
    assert "build it with -g" in caught.value.hint


def test_a_place_without_a_program_says_so():
    with pytest.raises(UsageError) as caught:
        resolve_file("@store.c:4", MachineObjects())
    assert "./program@store.c:4" in caught.value.hint


def test_addresses_have_the_line_that_they_came_from(store):
    place = f"store.c:{line_of('twice(by_value.a)')}"
    for one in resolve_file(f"{store}@{place}", MachineObjects()).found:
        assert source_line(one).endswith(f"/{place}")
    assert line_at(DebugProgram(str(store)), 1) is None


def test_prototypes_are_told_as_the_source_has_them(store):
    (one,) = resolve_file(f"{store}:work", MachineObjects()).found
    assert prototype(one) == "int work(int k, struct inner by_value, long last, ...)"


def test_copies_of_an_inlined_function_are_where_its_lines_are(store):
    (main,) = MachineObjects().find(str(store))
    copies = inlined_copies("twice", main)
    assert len(copies) >= 2
    assert all(one.startswith("store:work") for one in copies)
    for copy in copies:
        (one,) = resolve_file(f"{store}:{copy.partition(':')[2]}", MachineObjects()).found
        assert source_line(one).rpartition("/")[2] in {f"store.c:{number}" for number in range(1, len(LINES) + 1)}


def test_a_function_that_was_only_inlined_is_refused_with_its_copies(store):
    with pytest.raises(UnprobeableError, match="no entry, the compiler inlined it at") as caught:
        resolve_file(f"{store}:twice", MachineObjects())
    assert "store:work" in caught.value.hint
    with pytest.raises(SymbolNotFoundError):
        resolve_file(f"{store}:twices", MachineObjects())


def test_inlined_methods_are_found_by_their_qualified_name(tmp_path):
    source = tmp_path / "box.cc"
    source.write_text(
        "namespace n { struct Box { int v; __attribute__((always_inline)) int get(int k) { return v * k + 1; } }; }\n"
        "int main(int c, char **) { n::Box b{c}; return b.get(c) + b.get(3); }\n"
    )
    program = build(tmp_path, (str(source),), "-g", "-O1")
    assert len(inlined_at(DebugProgram(str(program)), "n::Box::get")) >= 1


def test_optimised_programs_have_lines_too(tmp_path):
    program = build(tmp_path, CPP, "-g", "-O2", "-std=c++17")
    line = (PROGRAMS / "shop.cc").read_text().splitlines().index("    return id + other.id + tax;") + 1
    found = find_line(DebugProgram(str(program)), "shop.cc", line, lambda address: address > 0)
    assert sum(len(addresses) for addresses in found.addresses.values()) >= 1
