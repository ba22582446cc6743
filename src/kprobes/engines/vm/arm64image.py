"""What is inside an arm64 `Image`: its release. QEMU boots the file as it is.

Source: Documentation/arch/arm64/booting.rst of the kernel (the header).
"""

from __future__ import annotations

import re

from kprobes.errors import FormatError

_MAGIC_AT = 56
_BANNER = re.compile(rb"Linux version ([0-9][!-~]{1,63}) \(")


def release_of(image: bytes) -> str:
    """Return the release (`uname -r`) that the banner in an arm64 Image names.

    Raises:
        FormatError: *image* is none.
    """
    found = _BANNER.search(image) if image[_MAGIC_AT : _MAGIC_AT + 4] == b"ARM\x64" else None
    if found is None:
        raise FormatError("this is not an arm64 kernel image", hint="give a version: --kernel 6.12 --arch arm64")
    return found[1].decode()
