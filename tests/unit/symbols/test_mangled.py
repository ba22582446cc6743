from __future__ import annotations

import subprocess

import pytest

from kprobes.errors import AmbiguousSymbolError
from kprobes.symbols.file import resolve_file
from kprobes.symbols.mangled import mangled_prefixes

SOURCE = """
struct Shop { int sell(int); int count() const; };
__attribute__((noinline)) int Shop::sell(int n) { return n + 1; }
__attribute__((noinline)) int Shop::count() const { return 3; }
__attribute__((noinline)) int outer(int n) { return n * 2; }
__attribute__((noinline)) int twice(int n) { return n; }
__attribute__((noinline)) int twice(long n) { return n; }
int main(int argc, char **) { Shop shop; return shop.sell(argc) + shop.count() + outer(argc) + twice(1) + twice(2L); }
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    directory = tmp_path_factory.mktemp("cxx")
    (directory / "shop.cc").write_text(SOURCE)
    subprocess.run(["g++", "-O1", "-o", directory / "shop", directory / "shop.cc"], check=True)
    return directory / "shop"


@pytest.mark.parametrize(
    ("name", "symbol"),
    [("outer", "_Z5outeri"), ("Shop::sell", "_ZN4Shop4sellEi"), ("Shop::count", "_ZNK4Shop5countEv")],
)
def test_a_cxx_function_is_found_by_its_name(program, name, symbol):
    assert [one.site.symbol for one in resolve_file(f"{program}:{name}").found] == [symbol]


def test_overloads_are_told_apart_by_their_symbols(program):
    with pytest.raises(AmbiguousSymbolError) as caught:
        resolve_file(f"{program}:twice")
    assert sorted(name.rpartition(":")[2] for name in caught.value.candidates) == ["_Z5twicei", "_Z5twicel"]


def test_what_is_no_name_has_no_prefix():
    assert mangled_prefixes("a+b") == ()
    assert mangled_prefixes("::") == ()
