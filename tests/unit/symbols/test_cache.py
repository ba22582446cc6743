import os

from kprobes.symbols import cache
from kprobes.symbols.cache import cache_directory, read_cached, write_cached
from kprobes.symbols.kallsyms import PROC, Kallsyms


def test_what_is_written_is_read_back_by_the_owner_alone(own_cache):
    assert write_cached("test-a", (b"ab", memoryview(b"cd")))
    assert read_cached("test-a") == b"abcd"
    assert (own_cache / "test-a").stat().st_mode & 0o777 == 0o600
    assert own_cache.stat().st_mode & 0o777 == 0o700
    assert [p.name for p in own_cache.iterdir()] == ["test-a"]


def test_file_that_others_may_write_is_not_trusted(own_cache):
    write_cached("test-a", (b"ab",))
    (own_cache / "test-a").chmod(0o666)
    assert read_cached("test-a") is None


def test_symbolic_link_is_not_followed(own_cache, tmp_path):
    write_cached("test-a", (b"ab",))
    (tmp_path / "other").write_bytes(b"evil")
    (tmp_path / "other").chmod(0o600)
    (own_cache / "test-b").symlink_to(tmp_path / "other")
    assert read_cached("test-b") is None


def test_directory_that_others_may_write_is_not_used(own_cache):
    write_cached("test-a", (b"ab",))
    own_cache.chmod(0o777)
    assert cache_directory() is None
    assert not write_cached("test-a", (b"ab",))


def test_no_home_means_no_cache(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME", raising=False)
    assert cache_directory() is None


def test_only_the_newest_of_a_kind_are_kept(own_cache, monkeypatch):
    monkeypatch.setattr(cache, "KEEP", 4)
    for number in range(7):
        write_cached(f"test-{number}", (b"x",))
        os.utime(own_cache / f"test-{number}", (number, number))
    write_cached("other-0", (b"x",))
    kept = {p.name for p in own_cache.iterdir()}
    assert len(kept) == 5
    assert "test-6" in kept
    assert "test-0" not in kept


def test_copy_of_the_symbol_table_answers_like_the_original(own_cache):
    first = Kallsyms.load(PROC)
    again = Kallsyms.load(PROC)
    assert first.lookup("vfs_read") == again.lookup("vfs_read")
    assert len(list(own_cache.glob("kallsyms-*"))) == (0 if first.hidden else 1)


def test_cut_copy_of_the_symbol_table_is_made_anew(own_cache):
    if Kallsyms.load(PROC).hidden:
        return
    (copy,) = own_cache.glob("kallsyms-*")
    whole = copy.read_bytes()
    copy.write_bytes(b"")
    assert Kallsyms.load(PROC).one("vfs_read")
    assert _lasting(copy.read_bytes()) == _lasting(whole)


def test_large_files_of_a_kind_are_limited_by_bytes(own_cache, monkeypatch):
    monkeypatch.setattr(cache, "KEEP_BYTES", 250)
    for number in range(4):
        write_cached(f"test-{number}", (bytes(100),))
        os.utime(own_cache / f"test-{number}", (number, number))
    write_cached("test-4", (bytes(300),))
    assert [p.name for p in own_cache.iterdir()] == ["test-4"]


def _lasting(table: bytes) -> list[bytes]:
    """Return the lines of a symbol table without those of BPF programs, which come and go."""
    return [line for line in table.split(b"\n") if not line.endswith(b"[bpf]")]
