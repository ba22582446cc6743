"""Numbers for people."""

from __future__ import annotations

_BINARY = "KMGTPE"


def grouped(number: int) -> str:
    """Return *number* with commas: 1,234,567."""
    return f"{number:,}"


def power(number: int) -> str:
    """Return a bound of power-of-two buckets: 512, 1K, 64M; exact, since only whole multiples are shortened."""
    sign, rest = ("-", -number) if number < 0 else ("", number)
    unit = 0
    while rest >= 1024 and rest % 1024 == 0 and unit < len(_BINARY):
        rest //= 1024
        unit += 1
    return f"{sign}{rest}{_BINARY[unit - 1] if unit else ''}"


def about(value: float) -> str:
    """Return *value* to three figures: 0.25, 12.5, 123, 45,678; large ones keep their whole part."""
    if abs(value) >= 1e16:
        return f"{value:.3g}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def data_size(count: float) -> str:
    """Return a number of bytes: 512 B, 1.5 KB, 32.1 MB (powers of 1000, as package managers show them)."""
    if count < 1000:
        return f"{count:.0f} B"
    units = ("KB", "MB", "GB")
    power_of = min(len(f"{count:.0f}") - 1, 9) // 3
    if count / 1000**power_of >= 999.95 and power_of < len(units):
        power_of += 1
    return f"{count / 1000**power_of:.1f} {units[power_of - 1]}"


def seconds(value: float) -> str:
    """Return a time span: 0.52 s, 12.3 s, 2 min 5 s."""
    if value < 9.995:
        return f"{value:.2f} s"
    if value < 99.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s"


def percent(part: int, whole: int) -> str:
    """Return *part* of *whole* as 12.3%; what is there but rounds to nothing is <0.1%."""
    if not whole:
        return "0.0%"
    share = 100 * part / whole
    return "<0.1%" if 0 < share < 0.05 else f"{share:.1f}%"
