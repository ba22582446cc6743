from pathlib import Path

import pytest

from kprobes.errors import AmbiguousSymbolError, SymbolNotFoundError, TypeNotFoundError, UnprobeableError, UsageError
from kprobes.model.plan import Site
from kprobes.symbols.btf_types import KernelTypes
from kprobes.symbols.explain import explain
from kprobes.symbols.frames import KernelFrames, name_kernel_frames
from kprobes.symbols.kernel import KernelSymbols, resolve_kernel

from .kernel_facts import FactsOf

GOLDEN = Path(__file__).parents[2] / "golden" / "symbols"
TABLE = GOLDEN / "kallsyms-6.18.txt"
VFS_READ = 0xFFFFFFFF816B89F0
BLACKLIST = """\
0xffffffff8120020d-0xffffffff81200220\tcopy_from_kernel_nofault
0xffffffff816b8d60-0xffffffff816b8fe0\t__kernel_write_iter
0x0000000000000000-0x0000000000000000\tirqentry_enter
"""


@pytest.fixture
def facts():
    functions = "vfs_read\nvfs_write\nvfs_fsync\ntcp_v4_connect\n"
    return FactsOf(TABLE, GOLDEN / "vmlinux-6.18.btf", {"blacklist": BLACKLIST, "functions": functions})


@pytest.fixture
def symbols(facts):
    return KernelSymbols(facts)


def refusal(symbols, text):
    with pytest.raises(UnprobeableError) as refused:
        symbols.resolve(text)
    return refused.value.reason


def test_function_becomes_one_site(facts):
    (found,) = resolve_kernel("vfs_read", facts)
    assert found.site == Site(0, "vfs_read", symbol="vfs_read", address=VFS_READ)
    assert found.size == 864


def test_offset_is_kept_apart_from_the_address(symbols):
    (found,) = symbols.resolve("vfs_read+0x10").found
    assert found.site == Site(0, "vfs_read+0x10", symbol="vfs_read", offset=16, address=VFS_READ)
    assert symbols.resolve("vfs_read+16").found == (found,)


def test_raw_address_becomes_symbol_and_offset(symbols):
    (found,) = symbols.resolve(f"{VFS_READ + 5:#x}").found
    assert (found.site.symbol, found.site.offset, found.site.address) == ("vfs_read", 5, VFS_READ)


def test_candidates_of_an_ambiguous_name_resolve(symbols):
    with pytest.raises(AmbiguousSymbolError) as refused:
        symbols.resolve("init_once")
    for candidate in refused.value.candidates:
        assert symbols.resolve(candidate).found[0].site.symbol == "init_once"


def test_offset_beyond_the_function_is_refused_with_its_size(symbols):
    assert refusal(symbols, "vfs_read+0x360") == "vfs_read has only 0x360 bytes"
    assert symbols.resolve("vfs_read+0x35f")


def test_blacklisted_function_is_refused_by_address_and_by_name(symbols):
    assert "blacklists" in refusal(symbols, "__kernel_write_iter")
    assert "blacklists" in refusal(symbols, "__kernel_write_iter+0x20")
    assert "blacklists" in refusal(symbols, "irqentry_enter")


def test_other_places_that_no_probe_can_take_are_refused_by_reason(symbols):
    assert "data" in refusal(symbols, "__start_rodata")
    assert "padding" in refusal(symbols, "__pfx_vfs_read")
    assert "init code" in refusal(symbols, "start_kernel")
    assert "no function" in refusal(symbols, "0x1234")


def test_changed_copies_are_offered_where_the_function_is_gone(symbols):
    with pytest.raises(UnprobeableError, match="changed copies") as refused:
        symbols.resolve("tcp_v4_md5_hash_hdr")
    assert "tcp_v4_md5_hash_hdr.isra.0" in refused.value.hint
    assert symbols.resolve("tcp_v4_md5_hash_hdr.isra.0")


def test_unknown_function_offers_the_nearest(symbols):
    with pytest.raises(SymbolNotFoundError) as refused:
        symbols.resolve("vfs_raed")
    assert "vfs_read" in refused.value.nearest


def test_module_that_is_not_loaded_is_named(symbols):
    with pytest.raises(SymbolNotFoundError) as refused:
        symbols.resolve("btrfs:btrfs_sync_file")
    assert "modprobe btrfs" in refused.value.hint


@pytest.mark.parametrize(
    "text", ["", "vfs_read+", "vfs_read+x", "a b", "vfs_read+0xfffffffff", "x:y:z", "vfs_*+4", "+4"]
)
def test_misspelt_place_is_a_usage_error(symbols, text):
    with pytest.raises(UsageError):
        symbols.resolve(text)


def test_glob_takes_what_can_be_probed_and_counts_the_rest(facts):
    resolution = KernelSymbols(facts).resolve("vfs_*")
    assert {one.site.symbol for one in resolution.found} == {"vfs_read", "vfs_write", "vfs_fsync"}
    assert all(one.traceable for one in resolution.found)
    (note,) = resolution.notes("vfs_*")
    assert note.startswith("vfs_*: ")
    assert "notrace" in note


def test_glob_counts_blacklisted_functions(facts):
    del facts.texts["functions"]
    resolution = KernelSymbols(facts).resolve("*kernel*")
    assert dict(resolution.skipped)["blacklisted"] == 2
    assert dict(resolution.skipped)["init code"] == 1
    assert all(one.traceable is None for one in resolution.found)


@pytest.mark.parametrize("pattern", ["*", "vfs_*", "??s_read"])
def test_functions_of_a_glob_are_those_it_resolves_to(symbols, pattern):
    listed, resolved = symbols.functions(pattern), symbols.resolve(pattern)
    assert listed.found == tuple((one.site.name, one.site.module, one.site.address) for one in resolved.found)
    assert listed.notes(pattern) == resolved.notes(pattern)


def test_glob_without_a_match_says_so(symbols):
    with pytest.raises(SymbolNotFoundError) as refused:
        symbols.resolve("no_such_*")
    assert "no function matches" in refused.value.hint
    with pytest.raises(SymbolNotFoundError) as refused:
        symbols.resolve("__kernel_write_*")
    assert "1 blacklisted" in refused.value.hint


def test_glob_leaves_padding_and_cold_halves_out_without_a_word(facts):
    del facts.texts["functions"]
    names = {one.site.symbol for one in KernelSymbols(facts).resolve("*").found}
    assert "vfs_read" in names
    assert not [name for name in names if name.startswith("__pfx_") or name.endswith(".cold")]


def test_whether_ftrace_reaches_it_is_told_when_asked(symbols):
    assert symbols.resolve("vfs_read").found[0].traceable is None
    assert symbols.resolve("vfs_read", traceable=True).found[0].traceable is True
    assert symbols.resolve("vfs_mkdir", traceable=True).found[0].traceable is False


def test_another_symbol_at_the_same_address_lends_its_name(facts, tmp_path):
    table = tmp_path / "kallsyms"
    address = f"{VFS_READ:016x}"
    aliases = [f"{address} T {name}\n" for name in ("__x64_sys_read_it", "data_of_it", "vfs_read", "other_name")]
    aliases[1] = aliases[1].replace(" T ", " d ")
    table.write_text("ffffffff81000000 T _text\n" + "".join(aliases) + f"{VFS_READ + 64:016x} T following\n")
    symbols = KernelSymbols(FactsOf(table, facts.btf(""), facts.texts))
    for name in ("__x64_sys_read_it", "other_name", "vfs_read"):
        (found,) = symbols.resolve(name, traceable=True).found
        assert found.site == Site(0, name, symbol="vfs_read", address=VFS_READ)
        assert found.traceable is True
    (within,) = symbols.resolve("other_name+8", traceable=True).found
    assert within.site.symbol == "other_name"
    told = explain("__x64_sys_read_it", symbols, KernelTypes.load(facts), facts)
    assert (told.name, told.traceable) == ("__x64_sys_read_it", True)
    assert "vfs_read(" in told.prototype


def test_hidden_addresses_allow_names_and_refuse_addresses(tmp_path):
    table = tmp_path / "kallsyms"
    table.write_text("0000000000000000 T _text\n0000000000000000 T vfs_read\n")
    symbols = KernelSymbols(FactsOf(table))
    assert symbols.resolve("vfs_read+0x500").found[0].site.address == 0
    assert "hidden" in refusal(symbols, "0xffffffff81000000")


def test_explanation_has_the_prototype_and_a_steadier_tracepoint(facts, symbols):
    facts.texts["format:syscalls/sys_enter_openat"] = "name: sys_enter_openat"
    found = explain("do_sys_openat2", symbols, KernelTypes.load(facts), facts)
    assert found.prototype == "int do_sys_openat2(int dfd, const char *filename, struct open_how *how)"
    assert found.tracepoints == ("syscalls:sys_enter_openat",)
    assert found.refusal == ""
    assert found.traceable is False


def test_explanation_of_an_unprobeable_function_has_the_reason(facts, symbols):
    found = explain("__kernel_write_iter", symbols, None, facts)
    assert "blacklists" in found.refusal
    assert found.prototype == ""


def test_kernel_without_type_information_is_refused_with_a_way_out():
    with pytest.raises(TypeNotFoundError) as refused:
        KernelTypes.load(FactsOf(TABLE))
    assert "regs.sp" in refused.value.hint


def test_frames_are_named_with_offset_and_module(facts, tmp_path):
    assert name_kernel_frames([VFS_READ + 0x2A, 0x1234], facts) == ["vfs_read+0x2a", "0x1234"]
    table = tmp_path / "kallsyms"
    table.write_text("ffffffff81000000 T _text\nffffffffc0100000 t ext4_iget\t[ext4]\n")
    assert KernelFrames(str(table)).names([0xFFFFFFFFC0100008]) == ["ext4_iget+0x8 [ext4]"]
