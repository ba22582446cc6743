"""What apt and dpkg say becomes one clear error."""

import sys

import pytest

from kprobes.engines.vm.packages import _failed, _tool
from kprobes.errors import DownloadError

NO_KEY = """\
Get:1 http://deb.debian.org/debian forky InRelease [151 kB]
Err:1 http://deb.debian.org/debian forky InRelease
  The following signatures couldn't be verified because the public key is not available: NO_PUBKEY 762F67A0B2C39DE4
W: GPG error: http://deb.debian.org/debian forky InRelease: The following signatures couldn't be verified
E: The repository 'http://deb.debian.org/debian forky InRelease' is not signed.
"""


def test_an_unknown_key_names_the_keyring_package():
    error = _failed("reading the package lists of forky", NO_KEY)
    assert "debian-archive-keyring" in error.hint
    assert "is not signed" in error.what


def test_a_tool_that_is_missing_is_named():
    with pytest.raises(DownloadError, match="there is no no-such-tool") as caught:
        _tool(["no-such-tool"], "unpacking")
    assert "--kernel" in caught.value.hint


def test_a_tool_that_fails_is_quoted():
    with pytest.raises(DownloadError, match="E: it broke"):
        _tool([sys.executable, "-c", "import sys; print('E: it broke'); sys.exit(100)"], "unpacking")


def test_progress_is_read_from_apts_status_descriptor(tmp_path):
    tool = tmp_path / "apt-get"
    tool.write_text(
        f"#!{sys.executable}\n"
        "import os, sys\n"
        "assert sys.argv[1] == '-o'\n"
        "status = int(sys.argv[2].removeprefix('APT::Status-Fd='))\n"
        "os.write(status, b'dlstatus:1:25.5000:Retrieving\\npmstatus:x:1:y\\ndlstatus:2:100.0:done\\n')\n"
        "print(sys.argv[3])\n"
    )
    tool.chmod(0o755)
    seen = []
    output = _tool([str(tool), "download"], "downloading", None, (None, seen.append))
    assert seen == [25.5, 100.0]
    assert output == "download\n"
