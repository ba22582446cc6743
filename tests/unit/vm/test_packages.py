"""What apt and dpkg say becomes one clear error."""

import sys

import pytest

from kprobes.engines.vm.arches import AARCH64, X86_64
from kprobes.engines.vm.packages import _download, _failed, _tool
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


APT = """\
#!{python}
# A stand-in for apt-get and apt-cache: the suite is the directory of the configuration file that it is given.
import pathlib, sys
words = sys.argv[1:]
while words[0] in ("-o", "-c"):
    if words[0] == "-c":
        suite = pathlib.Path(words[1]).parent
    words = words[2:]
archive = pathlib.Path({archive!r}) / suite.name
if "update" in words:
    if not archive.exists():
        sys.exit("E: The repository does not have a Release file.")
    (suite / "lists" / "deb_Packages").touch()
elif "show" in words:
    print((archive / words[-1]).read_text())
else:
    for word in words[2:]:
        pathlib.Path(word.replace("=", "_") + ".deb").write_text(word)
"""


@pytest.fixture
def archive(tmp_path, monkeypatch):
    home = tmp_path / "archive"
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("apt-get", "apt-cache"):
        (tools / name).write_text(APT.format(python=sys.executable, archive=str(home)))
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def add(suite, kernel, *parts, arch="amd64"):
        (home / suite).mkdir(parents=True)
        needs = ", ".join(f"{part}-{kernel}-cloud-{arch} (= 1)" for part in parts)
        head = "Version: 1\nSize: 1000\n"
        (home / suite / f"linux-image-cloud-{arch}").write_text(
            f"Package: linux-image-cloud-{arch}\n{head}Depends: linux-image-{kernel}-cloud-{arch} (= 1)\n"
        )
        for part in ("linux-image", *parts):
            name = f"{part}-{kernel}-cloud-{arch}"
            more = f"Depends: kmod, initramfs-tools | linux-initramfs-tool, {needs}\n" if part == "linux-image" else ""
            (home / suite / name).write_text(f"Package: {name}\n{head}{more}")

    return add


def downloaded(version, directory, arch=X86_64):
    directory.mkdir()
    return [path.name.partition("_")[0] for path in _download(version, directory, None, arch)]


def test_a_kernel_in_several_packages_is_downloaded_whole(archive, tmp_path):
    archive("forky", "7.2.12+deb14", "linux-binary", "linux-modules", "linux-base")
    assert downloaded("7.2", tmp_path / "work") == [
        "linux-binary-7.2.12+deb14-cloud-amd64",
        "linux-image-7.2.12+deb14-cloud-amd64",
        "linux-modules-7.2.12+deb14-cloud-amd64",
    ]


def test_the_next_suite_is_tried_when_one_has_moved_on(archive, tmp_path):
    archive("forky", "7.4.1+deb14")
    archive("sid", "7.2.13+deb14")
    assert downloaded("7.2", tmp_path / "work") == ["linux-image-7.2.13+deb14-cloud-amd64"]


def test_the_newest_of_testing_stands_in_for_a_version_that_is_gone(archive, tmp_path):
    archive("forky", "7.4.1+deb14")
    archive("sid", "7.5.2+deb14")
    assert downloaded("7.2", tmp_path / "work") == ["linux-image-7.4.1+deb14-cloud-amd64"]


def test_a_released_suite_is_never_taken_for_another_version(archive, tmp_path):
    archive("trixie", "6.16.1+deb13")
    with pytest.raises(DownloadError, match=r"no kernel 6\.12 any more \(it has linux-image-6\.16\.1"):
        downloaded("6.12", tmp_path / "work")


def test_a_suite_that_is_gone_is_told_in_apts_words(archive, tmp_path):
    with pytest.raises(DownloadError, match="does not have a Release file"):
        downloaded("6.1", tmp_path / "work")


def test_a_kernel_of_another_architecture_comes_from_a_state_of_its_own(archive, tmp_path):
    archive("trixie-arm64", "6.12.107+deb13", arch="arm64")
    archive("trixie", "6.12.106+deb13")
    assert downloaded("6.12", tmp_path / "arm64", AARCH64) == ["linux-image-6.12.107+deb13-cloud-arm64"]
    assert downloaded("6.12", tmp_path / "amd64") == ["linux-image-6.12.106+deb13-cloud-amd64"]
