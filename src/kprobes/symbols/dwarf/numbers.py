"""The numbers of DWARF that are used here. Source: DWARF 5, chapter 7; extensions as in GCC's dwarf2.def."""

from __future__ import annotations

from enum import IntEnum


class Tag(IntEnum):
    """What an entry describes."""

    ARRAY = 0x01
    CLASS = 0x02
    ENUMERATION = 0x04
    PARAMETER = 0x05
    MEMBER = 0x0D
    POINTER = 0x0F
    REFERENCE = 0x10
    COMPILE_UNIT = 0x11
    STRUCTURE = 0x13
    SUBROUTINE_TYPE = 0x15
    TYPEDEF = 0x16
    UNION = 0x17
    UNSPECIFIED_PARAMETERS = 0x18
    INHERITANCE = 0x1C
    INLINED = 0x1D
    MODULE = 0x1E
    POINTER_TO_MEMBER = 0x1F
    SUBRANGE = 0x21
    BASE = 0x24
    CONST = 0x26
    ENUMERATOR = 0x28
    SUBPROGRAM = 0x2E
    VARIABLE = 0x34
    VOLATILE = 0x35
    RESTRICT = 0x37
    INTERFACE = 0x38
    NAMESPACE = 0x39
    UNSPECIFIED_TYPE = 0x3B
    RVALUE_REFERENCE = 0x42
    ATOMIC = 0x47
    SKELETON_UNIT = 0x4A
    IMMUTABLE = 0x4B


class At(IntEnum):
    """What a value of an entry says."""

    SIBLING = 0x01
    NAME = 0x03
    BYTE_SIZE = 0x0B
    BIT_OFFSET = 0x0C
    BIT_SIZE = 0x0D
    STMT_LIST = 0x10
    LOW_PC = 0x11
    HIGH_PC = 0x12
    LANGUAGE = 0x13
    COMP_DIR = 0x1B
    CONST_VALUE = 0x1C
    INLINE = 0x20
    UPPER_BOUND = 0x2F
    ABSTRACT_ORIGIN = 0x31
    CALLING_CONVENTION = 0x36
    COUNT = 0x37
    MEMBER_LOCATION = 0x38
    ARTIFICIAL = 0x34
    DECLARATION = 0x3C
    ENCODING = 0x3E
    EXTERNAL = 0x3F
    SPECIFICATION = 0x47
    TYPE = 0x49
    VIRTUALITY = 0x4C
    ENTRY_PC = 0x52
    RANGES = 0x55
    SIGNATURE = 0x69
    DATA_BIT_OFFSET = 0x6B
    LINKAGE_NAME = 0x6E
    STR_OFFSETS_BASE = 0x72
    ADDR_BASE = 0x73
    RNGLISTS_BASE = 0x74
    DWO_NAME = 0x76
    EXPORT_SYMBOLS = 0x89
    DEFAULTED = 0x8B
    MIPS_LINKAGE_NAME = 0x2007
    GNU_VECTOR = 0x2107
    GNU_DWO_NAME = 0x2130
    GNU_DWO_ID = 0x2131
    GNU_RANGES_BASE = 0x2132
    GNU_ADDR_BASE = 0x2133


class Form(IntEnum):
    """How a value is written."""

    ADDR = 0x01
    BLOCK2 = 0x03
    BLOCK4 = 0x04
    DATA2 = 0x05
    DATA4 = 0x06
    DATA8 = 0x07
    STRING = 0x08
    BLOCK = 0x09
    BLOCK1 = 0x0A
    DATA1 = 0x0B
    FLAG = 0x0C
    SDATA = 0x0D
    STRP = 0x0E
    UDATA = 0x0F
    REF_ADDR = 0x10
    REF1 = 0x11
    REF2 = 0x12
    REF4 = 0x13
    REF8 = 0x14
    REF_UDATA = 0x15
    INDIRECT = 0x16
    SEC_OFFSET = 0x17
    EXPRLOC = 0x18
    FLAG_PRESENT = 0x19
    STRX = 0x1A
    ADDRX = 0x1B
    REF_SUP4 = 0x1C
    STRP_SUP = 0x1D
    DATA16 = 0x1E
    LINE_STRP = 0x1F
    REF_SIG8 = 0x20
    IMPLICIT_CONST = 0x21
    LOCLISTX = 0x22
    RNGLISTX = 0x23
    REF_SUP8 = 0x24
    STRX1 = 0x25
    STRX2 = 0x26
    STRX3 = 0x27
    STRX4 = 0x28
    ADDRX1 = 0x29
    ADDRX2 = 0x2A
    ADDRX3 = 0x2B
    ADDRX4 = 0x2C
    GNU_ADDR_INDEX = 0x1F01
    GNU_STR_INDEX = 0x1F02
    GNU_REF_ALT = 0x1F20
    GNU_STRP_ALT = 0x1F21


# Languages in which the name of a struct is no type's name by itself: C and its dialects.
C_LANGUAGES = frozenset({0x01, 0x02, 0x0C, 0x1D, 0x2C})
RUST = 0x1C
