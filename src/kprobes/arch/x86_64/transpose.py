"""Machine code that makes columns of records, for this process itself: some nanoseconds a row, where Python takes a
hundred.

The source is tests/golden/events/transpose.s; a test assembles it and compares.
"""

from __future__ import annotations

import struct

CODE = bytes.fromhex(
    "31c04885d27415390f751144394708750b4801f748ffc04839d072ebc3cccccc535541544155415641574d85c0746541b9800000"
    "004d39c84d0f42c84989fa4939f274414d8b5a084901d3498b5a104c89cd418b0283f808744683f804746183f802747c83f8010f"
    "849300000083f8030f84aa000000e9d500000049895a104983c230ebba4c89c8480fafc14801c24d29c8eb96415f415e415d415c"
    "5d5bc3cc498b034889034901cb4883c30848ffcd75eeebc7cccccccccccccccccccccccc418b0389034901cb4883c30448ffcd75"
    "efeba8cccccccccccccccccccccccccc410fb7036689034901cb4883c30248ffcd75edeb86cccccccccccccccccccccc410fb603"
    "88034901cb48ffc348ffcd75efe965ffffffcccccccccccccccccccc4d8b62184d8b6a20418b034c39e0490f47c44c39e84c0f47"
    "e889034901cb4883c30448ffcd75e14d896a20e92bffffff575641504d8b42184d8b6a2049bc01010101010101014d89e649c1e6"
    "074d89df4c89c64883ee087226498b07498945004889c748f7d74c29e04821f84c21f0752d4983c5084983c7084883ee0873da48"
    "83c6087423410fb60785c0741b4188450049ffc549ffc748ffce75e9eb0a480fbcc0c1e8034901c54c89e8492b422889034883c3"
    "044901cb48ffcd75904d896a2041585e5fe991feffff"
)
UNIFORM, TRANSPOSE = 0, 0x20  # where the functions begin

# A column: kind, offset of its field in a record, where its next value goes, then of the field's size, where the next
# text goes and where texts begin (strings), or the largest value allowed, the largest seen and 0 (bounded u32).
COLUMN = struct.Struct("<QQQQQQ")
TEXT, BOUNDED = 0, 3  # the other kinds are values of so many bytes: 1, 2, 4, 8
SEEN = 32  # offset in a column of where the next text goes, or of the largest value
SLACK = 8  # bytes behind the texts that may be written
