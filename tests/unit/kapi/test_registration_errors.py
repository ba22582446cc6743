"""Errors as the kernel's own calls give them."""

from __future__ import annotations

import errno

import pytest

from kprobes import (
    Kprobe,
    Kretprobe,
    Process,
    RegistrationError,
    enable_kprobe,
    register_kprobe,
    register_kprobes,
    register_kretprobe,
    unregister_kprobe,
    unregister_kprobes,
)
from kprobes.engines.kernel.refusals import kernel_refusal
from kprobes.engines.kernel.syscall import ENOTSUPP
from kprobes.engines.vm.trouble import describe_error, rebuild_error
from kprobes.errors import (
    AmbiguousSymbolError,
    CompileError,
    InternalError,
    PrivilegeError,
    SymbolNotFoundError,
    SyscallError,
    TargetError,
    UnprobeableError,
    UnsafeSiteError,
    UnsupportedError,
    UsageError,
)
from kprobes.kapi.refusal import name_of, told_as_errno
from kprobes.model.plan import Site, Way

CASES = {
    "ENOENT": [SymbolNotFoundError("vfs_reed")],
    "EADDRNOTAVAIL": [AmbiguousSymbolError("show", ("a:show", "b:show"))],
    "EOPNOTSUPP": [UnsafeSiteError("0x1000", "it leaves"), UnsupportedError("no kprobes here")],
    "EINVAL": [UnprobeableError("x", "it is data"), UsageError("what place?")],
    "EPERM": [PrivilegeError("not permitted"), SyscallError("attaching", errno.EPERM)],
    "EILSEQ": [UnprobeableError("x+1", "inside", number=errno.EILSEQ)],
    "EBUSY": [SyscallError("attaching", errno.EBUSY), TargetError("it is probed already", number=errno.EBUSY)],
    "ESRCH": [TargetError("process 7 ended")],
}


@pytest.mark.parametrize(("name", "error"), [(name, error) for name, errors in CASES.items() for error in errors])
def test_each_error_has_the_number_of_the_kernel(name, error):
    assert name_of(error) == name
    with pytest.raises(RegistrationError) as caught, told_as_errno("registering x"):
        raise error
    assert (caught.value.errno, caught.value.name) == (getattr(errno, name), name)
    assert caught.value.__cause__ is error
    assert str(caught.value) == f"registering x: {error.what} ({name})"


@pytest.mark.parametrize("error", [CompileError("no floats"), InternalError("broken")])
def test_mistakes_in_handlers_and_ours_stay_what_they_are(error):
    with pytest.raises(type(error)) as caught, told_as_errno("registering x"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    "number",
    [errno.EILSEQ, errno.EINVAL, errno.EOPNOTSUPP, errno.EADDRNOTAVAIL, errno.EBUSY, errno.E2BIG, errno.EEXIST],
)
def test_what_the_kernel_says_of_a_place_is_kept_also_on_its_way_out_of_a_guest(number):
    site = Site(0, "vfs_read+0x1", "vfs_read", 1)
    error = kernel_refusal(site, Way.KPROBE, number)
    assert name_of(error) == name_of(rebuild_error(describe_error(error)))
    assert getattr(errno, name_of(error)) == number


def test_two_numbers_for_what_is_not_supported_have_one_name():
    assert name_of(kernel_refusal(Site(0, "x", "x"), Way.KPROBE, ENOTSUPP)) == "EOPNOTSUPP"


def test_an_error_is_an_os_error_with_a_hint():
    error = RegistrationError("no place is given", "EINVAL", hint="symbol_name=")
    assert isinstance(error, OSError)
    assert (error.errno, error.name, error.hint) == (errno.EINVAL, "EINVAL", "symbol_name=")


NOBODY = Process(2**22 + 1)  # above the highest number that a process can have


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: register_kprobe(Kprobe(addr="main"), to=NOBODY), "addr is no number"),
        (lambda: register_kprobe(Kprobe(symbol_name="main", offset="4"), to=NOBODY), "offset is no number"),
        (lambda: register_kretprobe(Kretprobe(kp="main"), to=NOBODY), "kp is no Kprobe"),
        (lambda: register_kprobes(Kprobe(symbol_name="main"), to=NOBODY), "a list of probes is wanted here"),
        (lambda: unregister_kprobes(Kprobe(symbol_name="main")), "a list of probes is wanted here"),
        (lambda: unregister_kprobe("main"), "a Kprobe, Kretprobe or Jprobe is wanted here"),
        (lambda: enable_kprobe("main"), "a Kprobe, Kretprobe or Jprobe is wanted here"),
    ],
)
def test_what_is_no_probe_is_refused_before_the_target_is_looked_at(call, what):
    with pytest.raises(RegistrationError, match=what) as caught:
        call()
    assert caught.value.name == "EINVAL"
    assert caught.value.hint
