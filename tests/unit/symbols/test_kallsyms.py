from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kprobes.errors import AmbiguousSymbolError, FormatError, KprobesError, SymbolNotFoundError
from kprobes.symbols.kallsyms import Kallsyms, KernelSymbol

MODULES = """\
ffffffff81000000 T _text
ffffffff81000010 T shared
ffffffff81000040 t twice
ffffffff81000050 D some_data
ffffffff81000060 t twice
ffffffff81000070 T _etext
ffffffffc0100200 t shared\t[ext4]
ffffffffc0100000 t ext4_file_read_iter\t[ext4]
ffffffffc0100100 t ext4_file_write_iter\t[ext4]
ffffffffc0100000 t ext4_alias\t[ext4]
ffffffffc0200000 t only_here\t[snd_hda]
ffffffffc0300000 t bpf_prog_6deef7357e7b4530_dump\t[bpf]
"""


# Linux 7.0 and later call data `T`, too.
NEW = """\
ffffffff81000000 T _text
ffffffff81000010 T reads
ffffffff81000020 T _etext
ffffffff81000020 T also_there
ffffffff81000030 T some_data
ffffffff81000040 T same_place
ffffffff81000040 T _sinittext
ffffffff81000044 t set_up
ffffffff81000050 T _einittext
ffffffff81000060 T more_data
ffffffff80000000 t below\t[ext4]
ffffffffc0000000 T above\t[ext4]
"""

# arm64 has its modules below the kernel proper.
BELOW = """\
ffff800008010000 T _stext
ffff800008010000 T vfs_read
ffff800008010080 T ksys_read
ffff800008020000 D _etext
ffff800001002000 t read_pipe\t[virtio_console]
ffff800001001000 t init_port\t[virtio_console]
"""


@pytest.fixture(scope="module")
def real(golden):
    return Kallsyms.load(str(golden / "kallsyms-6.18.txt"))


@pytest.fixture
def modular():
    return Kallsyms(MODULES)


def test_name_is_found_whole_not_as_a_part(real):
    assert real.lookup("vfs_read") == [KernelSymbol("vfs_read", 0xFFFFFFFF816B89F0, "T")]
    assert real.lookup("fs_read") == []
    assert real.lookup("vfs_rea") == []


def test_kallsyms_lookup_name_gives_the_address_of_code_and_data(real):
    assert real.kallsyms_lookup_name("vfs_read") == 0xFFFFFFFF816B89F0
    assert real.kallsyms_lookup_name("__start_rodata") == real.lookup("__start_rodata")[0].address > 0
    with pytest.raises(SymbolNotFoundError):
        real.kallsyms_lookup_name("no_such_thing")


def test_name_in_several_places_is_refused_with_spellings_that_work(real):
    with pytest.raises(AmbiguousSymbolError) as refused:
        real.one("init_once")
    assert len(refused.value.candidates) == 12
    assert {int(c, 16) for c in refused.value.candidates} == {s.address for s in real.lookup("init_once")}


def test_ambiguous_across_modules_is_told_apart_by_module(modular):
    with pytest.raises(AmbiguousSymbolError) as refused:
        modular.one("shared")
    assert refused.value.candidates == ("0xffffffff81000010", "ext4:shared")
    assert modular.one("ext4:shared").address == 0xFFFFFFFFC0100200
    assert modular.one("vmlinux:shared").address == 0xFFFFFFFF81000010


def test_module_names_take_dash_and_underscore(modular):
    assert modular.one("snd-hda:only_here").module == "snd_hda"


def test_unknown_name_offers_the_nearest(real):
    with pytest.raises(SymbolNotFoundError) as refused:
        real.one("vfs_raed")
    assert refused.value.nearest[0] == "vfs_read"


def test_nearest_name_in_a_module_keeps_the_module(modular):
    assert modular.nearest("ext4:ext4_file_raed_iter")[0] == "ext4:ext4_file_read_iter"


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("vfs_rea?", {"vfs_read"}),
        ("vfs_rea[dx]", {"vfs_read"}),
        ("vfs_rea[!a-c]", {"vfs_read"}),
        ("vfs_rea[!d]", set()),
        ("*_read_iter", {"ext4_file_read_iter", "__pfx_ext4_file_read_iter"}),
        ("v*s_*d", {"vfs_read"}),
        ("vfs_read", {"vfs_read"}),
        ("__start_rodata", set()),  # data
    ],
)
def test_glob_matches_code_as_a_shell_would(real, pattern, names):
    found = {s.name for s in real.glob(pattern)}
    assert found >= names
    assert found == names or pattern in ("*_read_iter", "v*s_*d")


def test_only_the_data_of_the_kernel_proper_is_left_out_of_its_code():
    table = Kallsyms(NEW)
    assert [name for _, _, name, _ in table.matching("*")] == [line.split()[2] for line in NEW.splitlines()]
    assert [name for _, _, name, _ in table.matching("*", code=True)] == [
        "_text", "reads", "same_place", "_sinittext", "set_up", "below", "above"
    ]  # fmt: skip


def test_glob_of_a_module_stays_in_it(modular):
    assert [s.name for s in modular.glob("ext4:*file*")] == ["ext4_file_read_iter", "ext4_file_write_iter"]
    assert {s.module for s in modular.glob("*:shared")} == {"ext4"}
    assert {s.module for s in modular.glob("shared")} == {"", "ext4"}


def test_glob_and_a_plain_filter_agree(real):
    from fnmatch import fnmatchcase

    names = [s.name for s in real.symbols() if s.is_text]
    for pattern in ("vfs_*", "*read*", "__pfx_*e", "?fs_*", "*", "[a-f]*_*"):
        assert [s.name for s in real.glob(pattern)] == [n for n in names if fnmatchcase(n, pattern)]


def test_address_gives_symbol_and_offset(real):
    start = real.one("vfs_read")
    assert real.symbol_at(start.address) == (start, 0)
    assert real.symbol_at(start.address + 0x2A) == (start, 0x2A)
    assert real.size_of(start) == 0xFFFFFFFF816B8D60 - 16 - start.address
    assert real.symbol_at(0x1000) is None


def test_first_of_several_names_for_an_address_is_the_usual_one(modular):
    assert modular.symbol_at(0xFFFFFFFFC0100004)[0].name == "ext4_file_read_iter"


def test_every_address_is_found_as_a_plain_search_finds_it(real):
    code = sorted((s for s in real.symbols() if s.address and not s.module), key=lambda s: s.address)
    for before, after in pairwise(code):
        if before.address < after.address:
            found = real.symbol_at(after.address - 1)
            same = [s for s in code if s.address == before.address and s.is_text]
            assert found == ((same[0], after.address - 1 - before.address) if same else None)


def test_module_symbols_need_no_order(modular):
    assert modular.symbol_at(0xFFFFFFFFC0100104)[0].name == "ext4_file_write_iter"
    assert modular.size_of(modular.one("ext4:ext4_file_read_iter")) == 0x100
    assert modular.size_of(modular.one("ext4:shared")) == 4096


def test_data_is_no_place_in_code(modular):
    assert modular.symbol_at(0xFFFFFFFF81000054) is None


def test_address_beyond_the_kernel_is_in_no_function_of_it(modular):
    assert modular.symbol_at(0xFFFFFFFF81000070 + 0x100000) is None
    assert modular.symbol_at(0xFFFFFFFFFFFFF000) is None


def test_copies_made_by_the_compiler_are_found(real):
    assert [s.name for s in real.variants("calibrate_delay")] == ["calibrate_delay.cold"]
    assert {s.name for s in real.variants("tcp_v4_md5_hash_hdr")} == {"tcp_v4_md5_hash_hdr.isra.0"}


def test_hidden_addresses_are_detected():
    hidden = Kallsyms("0000000000000000 T _text\n0000000000000000 t twice\n0000000000000000 t twice\n")
    assert hidden.hidden
    with pytest.raises(AmbiguousSymbolError):
        hidden.one("twice")


def test_shown_addresses_are_not_called_hidden(modular):
    assert not modular.hidden
    assert not Kallsyms("0000000000000000 A fixed_percpu_data\nffffffff81000000 T _text\n").hidden


@pytest.mark.parametrize("text", ["", "\n", "hello", "PK\x03\x04", "ffffffff81000000 T", "zzzz T name"])
def test_what_is_no_symbol_table_is_refused(text):
    with pytest.raises(FormatError):
        Kallsyms(text)


def test_missing_file_is_a_clear_error(tmp_path):
    with pytest.raises(FormatError, match="can't be read"):
        Kallsyms.load(str(tmp_path / "nothing"))


@given(st.binary(max_size=300), st.integers(0, 2000), st.text(max_size=12))
def test_scribbled_tables_never_break_anything(junk, at, name):
    data = bytearray(MODULES.encode())
    data[at : at + len(junk)] = junk
    try:
        table = Kallsyms(bytes(data))
        table.lookup(name)
        table.glob(name + "*")
        table.matching("*", code=True)
        table.symbol_at(0xFFFFFFFFC0100004)
        table.variants("twice")
        table.one("twice")
    except KprobesError:
        pass


@pytest.mark.parametrize(
    ("address", "found"),
    [
        (0xFFFF800008010084, ("ksys_read", 4)),
        (0xFFFF800008010004, ("_stext", 4)),
        (0xFFFF800001001010, ("init_port", 0x10)),
        (0xFFFF800001002010, ("read_pipe", 0x10)),
        (0xFFFF800001000000, None),
    ],
)
def test_modules_may_lie_below_the_kernel(address, found):
    symbol = Kallsyms(BELOW).symbol_at(address)
    known = symbol and (symbol[0].name, symbol[1])
    assert known == found
