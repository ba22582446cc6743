"""C's own type names and the kernel's short ones, which mean the same whatever the types at hand say."""

from __future__ import annotations

from kprobes.model.ctype import CType, Float, Int, Void

CHAR = Int("char", 1, True, "char")
_SIZES = {"char": 1, "short": 2, "int": 4, "long": 8, "long long": 8, "__int128": 16}

# Spellings that name the same integer; the value is how messages write it.
_CANONICAL = {
    "short int": "short",
    "long int": "long",
    "long long int": "long long",
    "_Bool": "bool",
    "signed": "int",
    "unsigned": "unsigned int",
}


def canonical_int_name(name: str) -> str:
    """Return the usual spelling of an integer type: `long unsigned int` is `unsigned long`."""
    words = name.split()
    signs = [w for w in words if w in ("unsigned", "signed")]
    if not signs or len(words) == 1:
        return _CANONICAL.get(name, name)
    rest = " ".join(w for w in words if w not in signs)
    rest = _CANONICAL.get(rest, rest)
    if signs[0] == "signed":
        return "signed char" if rest == "char" else rest
    return f"unsigned {rest}"


def builtin_type(name: str) -> CType | None:
    """Return the type C or the kernel's <linux/types.h> mean by *name* on a 64-bit machine, or None."""
    plain = canonical_int_name(name)
    if plain in _FIXED:
        return _FIXED[plain]
    signed = not plain.startswith("unsigned ")
    size = _SIZES.get(plain.removeprefix("unsigned ").removeprefix("signed "))
    return Int(plain, size, signed) if size else None


def _short_names() -> dict[str, CType]:
    names: dict[str, CType] = {}
    for bits, signed_name in ((8, "signed char"), (16, "short"), (32, "int"), (64, "long long")):
        unsigned_name = "unsigned " + signed_name.removeprefix("signed ")
        for spelling in (f"u{bits}", f"__u{bits}", f"uint{bits}_t", f"__le{bits}", f"__be{bits}"):
            names[spelling] = Int(unsigned_name, bits // 8, False)
        for spelling in (f"s{bits}", f"__s{bits}", f"int{bits}_t"):
            names[spelling] = Int(signed_name, bits // 8, True)
    for spelling in ("size_t", "uintptr_t", "ulong"):
        names[spelling] = Int("unsigned long", 8, False)
    for spelling in ("ssize_t", "ptrdiff_t", "intptr_t"):
        names[spelling] = Int("long", 8, True)
    return names


_FIXED: dict[str, CType] = {
    "void": Void(),
    "bool": Int("bool", 1, False, "bool"),
    "char": CHAR,
    "float": Float("float", 4),
    "double": Float("double", 8),
    **_short_names(),
}
