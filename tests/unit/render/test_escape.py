"""Text from outside never reaches a terminal as it is."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kprobes.render.escape import escape, escape_lines

ANY_TEXT = st.text(st.characters())  # surrogates included
BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("vfs_read", "vfs_read"),
        ("", ""),
        ("a b", "a b"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x00\x07\x7f", "\\x00\\x07\\x7f"),
        ("a\nb\rc\td", "a\\nb\\rc\\td"),
        ("\x9b31m", "\\u009b31m"),
        ("evil\u202egnp", "evil\\u202egnp"),
        ("\u2028\ufeff", "\\u2028\\ufeff"),
        ("\U000e0041", "\\U000e0041"),
        ("Größe 日本 🐍", "Größe 日本 🐍"),
        (b"a\xff\x9bz".decode("utf-8", "surrogateescape"), "a\\xff\\x9bz"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_can_not_be_seen_is_shown_as_an_escape(raw: str, shown: str) -> None:
    assert escape(raw) == shown


@given(ANY_TEXT)
def test_escaped_text_holds_no_control_no_bidi_no_surrogate(text: str) -> None:
    shown = escape(text)
    assert not any(unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp", "Cn", "Co") for char in shown)
    assert not set(shown) & set(BIDI)
    shown.encode("utf-8")


@given(ANY_TEXT)
def test_escaping_twice_changes_nothing(text: str) -> None:
    assert escape(escape(text)) == escape(text)


@given(st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S"))))
def test_visible_text_stays_as_it_is(text: str) -> None:
    assert escape(text) == text


@given(st.binary())
def test_any_bytes_can_be_shown(raw: bytes) -> None:
    assert escape(raw.decode("utf-8", "surrogateescape")).isprintable()


def test_line_breaks_of_a_message_stay_and_other_controls_do_not() -> None:
    assert escape_lines("one\n\ttwo\r\n\x1bthree") == "one\n    two\\r\n\\x1bthree"
