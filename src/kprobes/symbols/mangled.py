"""C++ names as people write them -> how the symbols of such functions begin.

Only the name is encoded, the parameters that follow in a symbol are left open: `outer` finds `_Z5outeri`, `Shop::sell`
finds `_ZN4Shop4sellEi` and `_ZNK4Shop4sellEv`. Source: Itanium C++ ABI, 5.1 (mangling).
"""

from __future__ import annotations


def mangled_prefixes(name: str) -> tuple[str, ...]:
    """Return what the symbols of a C++ function called *name* can begin with; () where no function is called so."""
    parts = name.split("::")
    if not all(part.isidentifier() for part in parts):
        return ()
    encoded = "".join(f"{len(part)}{part}" for part in parts)
    if len(parts) == 1:
        return (f"_Z{encoded}", f"_ZL{encoded}")
    return (f"_ZN{encoded}E", f"_ZNK{encoded}E")
