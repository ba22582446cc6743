"""Struct classes of the user's own lie in memory as C lays them out."""

import enum
import subprocess

import pytest

from kprobes.errors import UsageError
from kprobes.model.cwords import ArrayOf, PointerTo, bits, char, cstr, i8, i64, ptr, size_t, u8, u16, u32, u64
from kprobes.model.structs import fingerprint, shape_of, struct, union


class Color(enum.IntEnum):
    RED = 1
    DEEP = -1


class Wide(enum.IntFlag):
    FAR = 1 << 40


@struct
class Pair:
    first: u8
    second: "u16"


@union
class Either:
    number: u64
    pair: Pair


@struct
class Header:
    magic: u32
    length: u16
    name: char[5]
    following: "Header *"
    pair: Pair
    pairs: "Pair[3]"
    one: bits(u32, 3)
    two: bits(u32, 30)
    three: bits(u8, 2)
    path: cstr
    file: "struct file *"
    grid: u16[2][3]
    either: Either
    color: Color
    wide: Wide
    is_on: bool
    count: "unsigned int[3]"
    size: size_t
    anything: ptr
    others: ptr[Pair]


@struct(packed=True)
class Packed:
    tag: u8
    value: u64
    low: bits(u16, 7)
    high: bits(u16, 12)
    last: i8


SOURCE = """
#include <stdio.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
struct pair { uint8_t first; uint16_t second; };
union either { uint64_t number; struct pair pair; };
enum color { RED = 1, DEEP = -1 };
struct header {
  uint32_t magic; uint16_t length; char name[5]; struct header *following; struct pair pair; struct pair pairs[3];
  uint32_t one : 3; uint32_t two : 30; uint8_t three : 2; const char *path; void *file; uint16_t grid[2][3];
  union either either; enum color color; int64_t wide; _Bool is_on; unsigned count[3]; size_t size; void *anything;
  struct pair *others;
};
struct __attribute__((packed)) packed {
  uint8_t tag; uint64_t value; uint16_t low : 7; uint16_t high : 12; int8_t last;
};
#define PLACE(s, m) printf("%s.%s %zu\\n", #s, #m, 8 * offsetof(struct s, m))
#define BITS(s, m) do { struct s v; memset(&v, 0, sizeof v); v.m = -1; unsigned char *p = (void *)&v; \\
  size_t i = 0; while (!(p[i / 8] >> i % 8 & 1)) i++; printf("%s.%s %zu\\n", #s, #m, i); } while (0)
int main(void) {
  PLACE(header, magic); PLACE(header, length); PLACE(header, name); PLACE(header, following); PLACE(header, pair);
  PLACE(header, pairs); BITS(header, one); BITS(header, two); BITS(header, three); PLACE(header, path);
  PLACE(header, file); PLACE(header, grid); PLACE(header, either); PLACE(header, color); PLACE(header, wide);
  PLACE(header, is_on); PLACE(header, count); PLACE(header, size); PLACE(header, anything); PLACE(header, others);
  printf("header %zu\\n", sizeof(struct header));
  PLACE(packed, tag); PLACE(packed, value); BITS(packed, low); BITS(packed, high); PLACE(packed, last);
  printf("packed %zu\\n", sizeof(struct packed));
}
"""


def test_layout_is_that_of_the_c_compiler(tmp_path):
    (tmp_path / "layout.c").write_text(SOURCE)
    subprocess.run(["gcc", "-o", tmp_path / "layout", tmp_path / "layout.c"], check=True)
    said = subprocess.run([tmp_path / "layout"], check=True, capture_output=True, text=True).stdout.splitlines()
    ours = []
    for cls in (Header, Packed):
        shape = shape_of(cls)
        name = cls.__name__.lower()
        ours += [f"{name}.{member.name} {member.bit_offset}" for member in shape.members]
        ours.append(f"{name} {shape.size}")
    assert ours == said


def test_fields_of_nested_structs_have_dotted_names():
    @struct
    class Key:
        pid: u32
        name: char[16]
        pair: Pair
        codes: u8[2]
        at: ptr

    fields = shape_of(Key).fields()
    assert [(one.name, one.kind, one.offset, one.size) for one in fields] == [
        ("pid", "uint", 0, 4), ("name", "str", 4, 16), ("pair.first", "uint", 20, 1), ("pair.second", "uint", 22, 2),
        ("codes[0]", "uint", 24, 1), ("codes[1]", "uint", 25, 1), ("at", "hex", 32, 8),
    ]  # fmt: skip


def test_an_instance_is_a_value():
    assert Pair(first=1, second=2) == Pair(1, 2)
    assert {Pair(1, 2): "x"}[Pair(1, 2)] == "x"


def test_a_pointer_to_itself_knows_the_finished_struct():
    member = next(one for one in shape_of(Header).members if one.name == "following")
    assert isinstance(member.type, PointerTo)
    assert shape_of(member.type.target) is shape_of(Header)


def test_arrays_of_arrays_count_as_in_c():
    assert u16[2][3] == ArrayOf(ArrayOf(u16, 3), 2)


def test_annotations_as_text_mean_the_same():
    names = {**globals()}
    exec(
        "from __future__ import annotations\n@struct\nclass Late:\n    a: u8\n    b: char[5]\n    c: 'Late *'\n", names
    )
    shape = shape_of(names["Late"])
    assert [member.bit_offset for member in shape.members] == [0, 8, 64]


@pytest.mark.parametrize("annotation", ["int", "str", "'struct file'", "float", "'no such thing'", "Own", "u8[0]"])
def test_members_without_a_layout_are_refused(annotation):
    with pytest.raises(UsageError) as caught:
        exec(f"@struct\nclass Own:\n    a: {annotation!r}\n", {"struct": struct, "u8": u8})
    assert caught.value.hint


def test_too_much_to_send_is_refused():
    @struct
    class Large:
        data: u64[1000]

    with pytest.raises(UsageError, match="fields"):
        shape_of(Large).fields()
    assert shape_of(Large).size == 8000


def test_the_fingerprint_tells_layouts_apart():
    def made(second):
        @struct
        class One:
            a: u8
            b: second
            c: "One *"

        return One

    assert fingerprint(made(u16)) != fingerprint(made(i64))
    assert fingerprint(made(u16)) == fingerprint(made(u16))
    assert fingerprint(Color) != fingerprint(Wide)
