"""Numbers as the kernel reads them: a result below zero is minus the errno.

Source: kstrtoul(), kstrtol(), kstrtouint(), simple_strtoul() of lib/kstrtox.c and lib/vsprintf.c.
"""

from __future__ import annotations

import re
from errno import EINVAL, ERANGE

WORD = 1 << 64
# `0x` needs a hexadecimal digit behind it, else the 0 stands alone as an octal number
_ANY = re.compile("0[xX]([0-9a-fA-F]+)|(0[0-7]*)|([1-9][0-9]*)")
_DECIMAL = re.compile("[0-9]+")


def unsigned(text: str, bits: int = 64) -> int:
    """Return the value of *text* (hexadecimal, octal or decimal by its prefix, a leading `+` is allowed).

    Minus ERANGE where *bits* don't hold it (beyond 64 also where rubbish follows); minus EINVAL where it is no number.
    """
    return _held(_whole(text[1:] if text[:1] == "+" else text), bits)


def decimal(text: str, bits: int = 64) -> int:
    """Return the value of *text* in base ten, as `unsigned` else."""
    text = text[1:] if text[:1] == "+" else text
    found = _DECIMAL.match(text)
    if not found:
        return -EINVAL
    return _held(_checked(int(found[0]), found.end() == len(text)), bits)


def unsigned_int(text: str) -> int:
    """Return the value of *text* if 32 bits hold it."""
    value = unsigned(text)
    return value if value < 1 << 32 else -ERANGE


def signed(text: str, bits: int = 64) -> tuple[int, int]:
    """Return (value, 0) of *text*, which may have a sign; (0, errno) where it is no number of *bits*."""
    negative = text[:1] == "-"
    value = _whole(text[1:]) if negative else unsigned(text)
    if value < 0:
        return 0, -value
    half = 1 << bits - 1
    if negative:
        return (-value, 0) if value <= half else (0, ERANGE)
    return (value, 0) if value < half else (0, ERANGE)


def leading(text: str, bits: int = 64, *, saturating: bool = False) -> tuple[int, int]:
    """Return the number that *text* begins with and its length: 0 where there is none.

    Of what is beyond *bits* the lower ones are left, or all of 64 set first where *saturating*.
    """
    found = _ANY.match(text)
    if not found:
        return 0, 0
    value = _value(found)
    return (min(value, WORD - 1) if saturating else value) % (1 << bits), found.end()


def leading_decimal(text: str, *, saturating: bool = False) -> tuple[int, int]:
    """Return the decimal number that *text* begins with, as an `int` of C holds it, and its length."""
    found = _DECIMAL.match(text)
    if not found:
        return 0, 0
    value = int(found[0])
    low = (min(value, WORD - 1) if saturating else value) % (1 << 32)
    return low - (1 << 32 if low >> 31 else 0), found.end()


def _held(value: int, bits: int) -> int:
    return value if value < 1 << bits else -ERANGE


def _whole(text: str) -> int:
    found = _ANY.match(text)
    if not found:
        return -EINVAL
    return _checked(_value(found), found.end() == len(text))


def _value(found: re.Match[str]) -> int:
    digits, octal, plain = found.groups()
    return int(digits, 16) if digits else int(octal, 8) if octal else int(plain)


def _checked(value: int, whole: bool) -> int:
    if value >= WORD:
        return -ERANGE
    return value if whole else -EINVAL
