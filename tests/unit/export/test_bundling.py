"""What is to be known of probes before they go into a bundle."""

from __future__ import annotations

import pytest

import kprobes
from export import kernel_addresses
from kprobes import emit, kprobe
from kprobes import var as kernel_variable
from kprobes.cli.export_bundle import export_bundle
from kprobes.cli.parser import Namespace
from kprobes.errors import UsageError
from kprobes.export.bundling import names_addresses


def through_another():
    return kernel_addresses.value()


@kprobe("vfs_read")
def renamed():
    emit(kernel_variable("jiffies"))


@kprobe("vfs_read")
def qualified():
    emit(kprobes.var("jiffies"))


@kprobe("vfs_read")
def elsewhere():
    emit(through_another())


@pytest.mark.parametrize("probe", [renamed, qualified, elsewhere], ids=lambda one: one.handler.name)
def test_an_address_of_the_kernel_is_found_by_whatever_name_it_is_asked_for(probe):
    assert names_addresses(probe)


def test_a_handler_that_asks_for_none_fits_wherever_the_kernel_lies():
    @kprobe("vfs_read")
    def plain():
        emit(kernel_addresses.other())

    assert not names_addresses(plain)


def test_settings_of_probes_that_have_none_are_refused():
    arguments = Namespace()
    arguments.items, arguments.set, arguments.command, arguments.pid = ["vfs_read"], ["most=1"], [], None
    with pytest.raises(UsageError, match="probes have no settings"):
        export_bundle(arguments)
