"""Errors are raised again as what they were."""

import errno

import pytest

from kprobes import errors
from kprobes.engines.vm.frames import FrameReader, encode_frame
from kprobes.engines.vm.trouble import describe_error, rebuild_error

ERRORS = [
    errors.UsageError("no", hint="yes"),
    errors.CompileError("bad", place=("f.py", 3, 2), source="  x = y"),
    errors.VerifierError("refused", log="0: r0 = 0\nR1 !read_ok", place=("f.py", 3, 2), hint="h"),
    errors.SymbolNotFoundError("vfs_raed", nearest=("vfs_read",), where="6.12"),
    errors.AmbiguousSymbolError("dup", ("a:dup", "b:dup")),
    errors.UnprobeableError("do_int3", "blacklisted", hint="h"),
    errors.UnsafeSiteError("x+1", "in mid-instruction"),
    errors.PrivilegeError("no CAP_BPF", hint="sudo"),
    errors.UnsupportedError("no kprobes"),
    errors.SyscallError("attaching", errno.EBUSY, hint="wait"),
    errors.InternalError("oops"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_crosses_as_the_same_class_with_its_data(error):
    ((head, _),) = FrameReader().feed(encode_frame({"error": describe_error(error)}))
    again = rebuild_error(head["error"])
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
    assert getattr(again, "errno", None) == getattr(error, "errno", None)


def test_a_bug_in_the_guest_arrives_with_its_traceback():
    try:
        {}["missing"]
    except KeyError as error:
        again = rebuild_error(describe_error(error))
    assert isinstance(again, errors.InternalError)
    assert "test_trouble.py" in again.what
    assert again.hint == errors.REPORT


@pytest.mark.parametrize(
    "described",
    [
        None,
        5,
        {},
        {"class": "UsageError"},
        {"class": "os", "data": {"what": "x"}},
        {"class": "UsageError", "data": {"what": 5}},
        {"class": "KprobesErrors", "data": {"what": "x"}},
    ],
)
def test_a_malformed_description_is_a_bug_and_no_crash(described):
    assert isinstance(rebuild_error(described), errors.InternalError)
