"""The file of a bundle: what is read is what was written, and what is damaged or hostile is refused by one error."""

from __future__ import annotations

import json
import os
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kprobes.cli.info_bundle import names_bundle, show_bundle
from kprobes.errors import FormatError
from kprobes.export.bundlefile import (
    Bundle,
    BundledProbe,
    BundledTarget,
    bundle_from_bytes,
    bundle_to_bytes,
)
from kprobes.export.magic import MAGIC, is_bundle
from kprobes.model.store import digest_of

text = st.text(max_size=20)
targets = st.builds(
    BundledTarget,
    st.sampled_from(("kernel", "process")),
    text,
    text,
    st.integers(0, 2**64 - 1),
    st.lists(st.tuples(text, text), max_size=3).map(tuple),
    st.lists(st.binary(max_size=50), min_size=1, max_size=3).map(tuple),
)
bundles = st.builds(
    Bundle,
    text,
    text,
    text,
    st.lists(st.tuples(text, st.one_of(st.integers(-(2**63), 2**64 - 1), text, st.booleans())), max_size=3).map(tuple),
    st.lists(st.builds(BundledProbe, text, st.lists(text, max_size=3).map(tuple)), max_size=3).map(tuple),
    st.lists(targets, max_size=3).map(tuple),
)


def sealed(head: object, blobs: bytes = b"") -> bytes:
    """Return a file with any head, and a checksum that fits."""
    raw = head if isinstance(head, bytes) else json.dumps(head).encode()
    body = MAGIC + struct.pack("<I", len(raw)) + raw + blobs
    return body + digest_of(body, 32)


SMALL = Bundle("0.1", "x.py", "text", (), (BundledProbe("kprobe", ("vfs_read",)),), ())


@given(bundles)
def test_what_is_read_is_what_was_written(bundle):
    assert bundle_from_bytes(bundle_to_bytes(bundle)) == bundle


@given(bundles, st.data())
def test_a_damaged_byte_is_always_found(bundle, data):
    content = bytearray(bundle_to_bytes(bundle))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(FormatError):
        bundle_from_bytes(bytes(content))


@given(bundles, st.integers(1, 200))
def test_a_bundle_that_is_cut_short_is_refused(bundle, cut):
    with pytest.raises(FormatError):
        bundle_from_bytes(bundle_to_bytes(bundle)[:-cut])


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), text),
    lambda inner: st.one_of(st.lists(inner, max_size=7), st.dictionaries(text, inner, max_size=3)),
    max_leaves=30,
)
keys = st.sampled_from(("version", "made_by", "name", "script", "settings", "probes", "targets"))


@settings(max_examples=100)
@given(st.dictionaries(keys, values), st.binary(max_size=40))
def test_a_hostile_head_with_a_fitting_checksum_is_refused_or_read_whole(head, blobs):
    base = {"version": 1, "made_by": "", "name": "", "script": "", "settings": [], "probes": [], "targets": []}
    try:
        found = bundle_from_bytes(sealed({**base, **head}, blobs))
    except FormatError:
        return
    assert isinstance(found, Bundle)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_by_one_error(data):
    for content in (data, MAGIC + data, sealed(data)):
        with pytest.raises(FormatError):
            bundle_from_bytes(content)


def test_a_deeply_nested_head_is_refused():
    with pytest.raises(FormatError):
        bundle_from_bytes(sealed(b"[" * 100_000))


def test_a_head_with_a_number_of_thousands_of_digits_is_refused():
    with pytest.raises(FormatError):
        bundle_from_bytes(sealed(b'{"version":' + b"9" * 5000 + b"}"))


def test_another_version_is_named():
    with pytest.raises(FormatError, match="version 9, not 1"):
        bundle_from_bytes(sealed({"version": 9}))


def test_bytes_behind_the_last_blob_are_refused():
    data = bundle_to_bytes(SMALL)
    body = data[:-32] + b"more"
    with pytest.raises(FormatError):
        bundle_from_bytes(body + digest_of(body, 32))


def test_bundles_are_told_from_scripts(tmp_path):
    (tmp_path / "one").write_bytes(bundle_to_bytes(SMALL))
    (tmp_path / "two").write_text("print(1)\n")
    assert is_bundle(str(tmp_path / "one"))
    assert not is_bundle(str(tmp_path / "two"))
    assert not is_bundle(str(tmp_path / "none"))


def test_what_a_bundle_is_for_is_told_and_nothing_of_it_is_run(tmp_path, capsys):
    path = tmp_path / "b.kpb"
    target = BundledTarget("kernel", "ab" * 20, "6.1\x1b[2J", 1, (), (b"plan",))
    probe = BundledProbe("kprobe", ("vfs_read", "vfs_write"))
    path.write_bytes(
        bundle_to_bytes(Bundle("0.1", "x.py", "raise SystemExit(9)", (("least", 5),), (probe,), (target,)))
    )
    assert names_bundle(str(path))
    assert show_bundle(str(path), as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [" ".join(one.split()) for one in lines] == [
        "made by kprobes 0.1",
        "script x.py, 1 lines of Python, which a run executes",
        "setting least = 5, compiled in",
        "probe kprobe vfs_read, vfs_write",
        "for the kernel 6.1?[2J, build abababababababab, where it lies as it did (nokaslr)",
    ]
    show_bundle(str(path), as_json=True)
    assert json.loads(capsys.readouterr().out)["probe"] == ["kprobe vfs_read, vfs_write"]


def test_a_function_is_no_bundle(tmp_path, monkeypatch):
    (tmp_path / "vfs_read").write_bytes(bundle_to_bytes(SMALL))
    monkeypatch.chdir(tmp_path)
    assert not names_bundle("vfs_read")
    assert not names_bundle("./none.kpb")


def test_a_script_that_comes_through_a_pipe_is_left_whole():
    reader, writer = os.pipe()
    os.write(writer, b"KPB1 or a script\n")
    os.close(writer)
    assert not is_bundle(f"/proc/self/fd/{reader}")
    with os.fdopen(reader, "rb") as file:
        assert file.read() == b"KPB1 or a script\n"
