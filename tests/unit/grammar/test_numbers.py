from errno import EINVAL, ERANGE

from hypothesis import given
from hypothesis import strategies as st

from kprobes.grammar.numbers import decimal, leading, leading_decimal, signed, unsigned, unsigned_int


def test_prefix_tells_the_base():
    assert [unsigned(text) for text in ("10", "010", "0x10", "0X1f", "+5", "0")] == [10, 8, 16, 31, 5, 0]


def test_what_is_no_number_is_einval():
    assert {unsigned(text) for text in ("", "x", "08", "0x", "1x", "-1", "++1", "0xg")} == {-EINVAL}


def test_overflow_is_erange_also_with_rubbish_behind():
    assert unsigned(str(2**64 - 1)) == 2**64 - 1
    assert unsigned(str(2**64)) == unsigned(f"{2**64}x") == -ERANGE
    assert unsigned_int(str(2**32)) == -ERANGE
    assert decimal(str(2**64)) == -ERANGE


def test_signed_numbers_have_63_bits():
    assert signed(str(-(2**63))) == (-(2**63), 0)
    assert signed(str(2**63)) == signed(str(-(2**63) - 1)) == (0, ERANGE)
    assert signed("--1") == (0, EINVAL)


def test_leading_number_is_cut_or_saturated():
    assert leading("0x10/8") == (16, 4)
    assert leading("x") == (0, 0)
    assert leading(str(2**64 + 5))[0] == 5
    assert leading(str(2**64 + 5), saturating=True)[0] == 2**64 - 1
    assert leading_decimal(f"{2**32 - 1}:u8") == (-1, 10)


@given(st.integers(-(2**63), 2**63 - 1))
def test_every_number_is_read_back(value):
    assert signed(str(value)) == (value, 0)
    assert unsigned(hex(value % 2**64)) == value % 2**64
