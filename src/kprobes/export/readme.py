"""The README of an exported module."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kprobes.export.part import Part, Shared


def readme_of(name: str, parts: Sequence[Part], shared: Sequence[Shared]) -> str:
    """Return the README of the module *name*, in Markdown."""
    probes = "\n".join(f"- `{part.name}`: `{part.title}`" for part in parts)
    settings = [one for one in shared if "module_param(" in one.declarations]
    parameters = [
        f"| `{part.name}_symbol` | the function that is probed | `{part.places[0].symbol}` |"
        for part in parts
        if len(part.places) == 1 and part.places[0].symbol
    ]
    parameters += [
        f"| `{part.name}_maxactive` | calls that are followed at a time; 0: the kernel's choice | {part.maxactive} |"
        for part in parts
        if part.is_return
    ]
    parameters += [f"| `{one.name}` | a setting of the script | |" for one in settings]
    table = "\n".join(["| parameter | what it is | default |", "|---|---|---|", *parameters]) if parameters else "None."
    return f"""\
# {name}

A kernel module that probes the kernel it is loaded into, written by `kprobes export module`:

{probes}

## Build

It needs gcc, make and the headers of that kernel (`linux-headers-$(uname -r)` on Debian):

    make
    make KDIR=/path/to/headers          # of another kernel

## Use

    insmod {name}.ko
    dmesg --follow                      # what the probes see
    rmmod {name}                        # dmesg tells hits, misses and faults, and what was counted

A probe that was *missed* was hit while another handler ran on the same CPU, or found no room (`maxactive`). A *fault*
is memory that could not be read; what is shown of it is 0 or empty.

## Parameters

{table}

In a kernel in a box, with kprobes:

    kprobes vm --copy {name}.ko -- sh -c 'insmod /root/{name}.ko; sleep 5; rmmod {name}; dmesg | grep {name}:'

Remove the module before you build it anew for another kernel: a module is bound to the release it was built for.
"""
