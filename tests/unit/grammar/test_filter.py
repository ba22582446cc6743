import pytest
from hypothesis import given
from hypothesis import strategies as st

from kprobes.errors import DefinitionError
from kprobes.grammar.cpulist import parse_cpus
from kprobes.grammar.filter import (
    HINTS,
    MESSAGES,
    Both,
    Comparison,
    Either,
    FilterField,
    Not,
    field_of,
    matches,
    parse_filter,
)
from kprobes.grammar.glob import matches_pattern
from kprobes.grammar.world import World

A = FilterField("a", 8)
B = FilterField("b", 4, signed=True)
C = FilterField("c", 4, signed=True, string=True)
D = FilterField("d", 1)
FIELDS = (A, B, C, D)
RECORD = {"a": 6, "b": -1, "c": "cat", "d": 200, "comm": "bash", "cpu": 1}


def passes(text):
    return matches(parse_filter(text, FIELDS), RECORD)


def test_and_binds_more_than_or_and_not_takes_one():
    one, two, three = (Comparison(A, "==", value) for value in (1, 2, 3))
    assert parse_filter("a==1 || a==2 && a==3", FIELDS) == Either((one, Both((two, three))))
    assert parse_filter("!a==1 && !(a==2 || a==3)", FIELDS) == Both((Not(one), Not(Either((two, three)))))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a == 6", True),
        ("a != 6", False),
        ("a > 6 || a <= 0x6", True),
        ("a & 4 && !(a & 1)", True),
        ("b < 0", True),
        ("b == 4294967295", True),  # cut to the field's 32 bits
        ("d > 100 && d < 256", False),  # 256 is cut to 0
        ('c == "cat"', True),
        ("c != 'cat'", False),
        ('c ~ "c*"', True),
        ('c ~ "!c*"', False),
        ('comm ~ "*s*" && cpu == 1', True),
        ("a == 6 &&", True),
        ("((a == 1))||((a == 6))", True),
    ],
)
def test_record_passes(text, expected):
    assert passes(text) == expected


def test_zero_clears_a_filter():
    assert parse_filter(" 0\n", FIELDS) is None
    assert matches(None, {})


@pytest.mark.parametrize(
    ("text", "code", "number"),
    [
        ("nosuch ^== 1", "FIELD_NOT_FOUND", 22),
        ("a ^= 1", "INVALID_OP", 22),
        ("a == ^x", "INVALID_VALUE", 22),
        ("a == ^-1", "ILLEGAL_INTVAL", 22),
        ("a == 18446744073709551616^", "ILLEGAL_INTVAL", 22),
        ('a == ^"x"', "EXPECT_DIGIT", 22),
        ("c == ^1", "EXPECT_STRING", 22),
        ("a ~ ^1", "ILLEGAL_FIELD_OP", 22),
        ('c < ^"x"', "ILLEGAL_FIELD_OP", 22),
        ('c == ^"x', "MISSING_QUOTE", 3),
        ("(a == 1 || ^(b == 1)", "TOO_MANY_OPEN", 2),
        ("a == 1^)", "TOO_MANY_CLOSE", 1),
        ("a == 1 ^b == 2", "TOO_MANY_PREDS", 1),
        ("a == 123456789012345678901234^", "OPERAND_TOO_LONG", 22),
    ],
)
def test_refusal_has_message_and_column(text, code, number):
    with pytest.raises(DefinitionError) as caught:
        parse_filter(text.replace("^", ""), FIELDS)
    error = caught.value
    assert (error.code, error.errno, error.message) == (code, number, MESSAGES[code])
    assert error.hint == (HINTS[code] if code != "FIELD_NOT_FOUND" else "there are a, b, c, d, cpu, comm")
    if code in {"MISSING_QUOTE", "TOO_MANY_CLOSE", "TOO_MANY_PREDS"}:
        assert error.column == text.index("^")
    elif code not in {"ILLEGAL_INTVAL", "TOO_MANY_OPEN"}:
        assert error.column in {text.index("^"), text.index("^") + 1}


def test_empty_filter_is_an_error_without_a_place():
    for text in ("", "()", "&& "):
        with pytest.raises(DefinitionError) as caught:
            parse_filter(text, FIELDS)
        assert (caught.value.code, caught.value.column) == ("ERRNO", 0)


def test_the_bounds_of_a_function_are_not_known_without_symbols():
    with pytest.raises(DefinitionError, match="not known here"):
        parse_filter("a.function == vfs_read", FIELDS, "6.12")


def test_a_list_of_cpus_is_read_as_the_kernel_does():
    cases = {"0": (0,), "0-2,5": (0, 1, 2, 5), "all": tuple(range(8)), "N": (7,), " , ": (), "0-N:1/4": (0, 4)}
    assert {text: parse_cpus(text, 8) for text in cases} == cases
    for refused in ("8", "2-1", "x", "0:1/2", "0-3:2/1", "0-3:1/0", "-1", "0x1", "0-1/2"):
        assert parse_cpus(refused, 8) is None


@pytest.mark.parametrize(
    ("text", "passing"),
    [
        ("cpu == CPUS{3}", {3}),
        ("cpu != CPUS{3}", {0, 1, 2}),
        ("cpu & CPUS{1-2}", {1, 2}),
        ("cpu == CPUS{1-2}", set()),
        ("cpu != CPUS{1-2}", {0, 1, 2, 3}),
        ("cpu & CPUS{,}", set()),
        ("cpu & 1", set()),
        ("!(cpu & 1)", {0, 1, 2, 3}),
        ("!(cpu & CPUS{0,3})", {1, 2}),
    ],
)
def test_a_list_of_several_cpus_is_asked_by_an_ampersand(text, passing):
    condition = parse_filter(text, FIELDS, "6.12", World(cpus=4))
    assert {cpu for cpu in range(4) if matches(condition, {"cpu": cpu})} == passing


def test_field_is_read_from_its_declaration():
    assert field_of("__data_loc char[]", "c", 4, True) == FilterField("c", 4, signed=True, string=True)
    assert field_of("char[16]", "comm", 16, False) == FilterField("comm", 16, string=True, fixed=True)
    assert field_of("const char *", "p", 8, False).string
    assert not field_of("unsigned char", "flags", 1, False).string
    assert not field_of("u64[2]", "x", 16, False).string


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("cat", "cat", True),
        ("ca*", "cat", True),
        ("*at", "cat", True),
        ("*a*", "cat", True),
        ("c*t", "caught", True),
        ("c?t", "cat", True),
        ("[a-c]at", "cat", True),
        ("[!a-c]at", "cat", False),
        ("c[a", "c[a", True),
        ("\\*", "*", True),
        ("1*", "12", False),  # digits first: as it is
        ("1*", "1*", True),
        ("*", "", True),
        ("!cat", "dog", True),
        ("a*b*c", "axbxbc", True),
        ("a*b*c", "axbxbd", False),
    ],
)
def test_pattern(pattern, text, expected):
    assert matches_pattern(pattern, text) == expected


@pytest.mark.parametrize(
    ("filter_", "comm", "passes"),
    [
        ('comm ~ "*at"', "cat", False),  # 13 zeros stand behind it
        ('comm ~ "!*at"', "cat", True),
        ('prev_comm ~ "*at"', "cat", False),
        ('comm ~ "*at"', "fifteen_ends_at", True),
        ('comm ~ "*"', "cat", True),
        ('comm ~ "*a*"', "cat", True),
        ('comm ~ "?at"', "cat", True),
        ('comm ~ "fifteen_ends_at*"', "fifteen_ends_at", True),
        ('comm == "fifteen_ends_at!"', "fifteen_ends_at", False),
        ('comm == "ls"', "ls\0obes-agent\0\0", True),
        ('comm ~ "l?"', "ls\0obes-agent\0\0", True),
        ('comm ~ "*agent*"', "ls\0obes-agent\0\0", True),  # what 5.10 leaves of the name before
        ('comm ~ "*agent"', "ls\0obes-agent\0\0", False),
        ('comm ~ "*agent"', "ls\0obes-n_agent\0", True),
        ('prev_comm == "sixteen_with_no_nul"', "sixteen_with_no_", True),
    ],
)
def test_an_array_of_fixed_size_is_compared_to_its_end(filter_, comm, passes):
    fields = [field_of("char[16]", "prev_comm", 16, True)]
    assert matches(parse_filter(filter_, fields), {"comm": comm, "prev_comm": comm}) == passes


PIECES = [
    "a",
    "b",
    "c",
    "comm",
    " ",
    "==",
    "!=",
    "~",
    "<",
    "&",
    "&&",
    "||",
    "!",
    "(",
    ")",
    "1",
    "-1",
    "0x",
    '"x*"',
    '"',
    "\xe9",
]


@given(st.lists(st.sampled_from(PIECES), max_size=16).map("".join), st.sampled_from(["5.10", "7.2"]))
def test_every_filter_has_a_verdict(text, kernel):
    try:
        found = parse_filter(text, FIELDS, kernel)
    except DefinitionError as error:
        refused = error.errno
    else:
        refused = 0
        assert matches(found, RECORD) in {True, False}
    assert 0 <= refused <= 22
