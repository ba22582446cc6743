"""apt's configuration in both formats, as machines have it."""

import pytest

from kprobes.engines.vm.packages import configuration, suite_lines
from kprobes.engines.vm.sources import Source, machine_sources, mirrors, parse_deb822, parse_list

BOOKWORM_IMAGE = """\
Types: deb
# http://snapshot.debian.org/archive/debian/20250520T000000Z
URIs: http://deb.debian.org/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
# http://snapshot.debian.org/archive/debian-security/20250520T000000Z
URIs: http://deb.debian.org/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""

INSTALLER = """\
# deb cdrom:[Debian GNU/Linux 12.5.0 _Bookworm_ - Official amd64 NETINST]/ bookworm main

deb http://ftp.de.debian.org/debian/ bookworm main non-free-firmware
deb-src http://ftp.de.debian.org/debian/ bookworm main non-free-firmware
deb http://security.debian.org/debian-security bookworm-security main   # updates

deb [arch=amd64 signed-by=/etc/apt/keyrings/docker.asc] https://download.docker.com/linux/debian bookworm stable
"""

EMBEDDED_KEY = """\
Types: deb deb-src
URIs: https://mirror.example/debian https://second.example/debian
Suites: trixie
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mDMEZQ
 -----END PGP PUBLIC KEY BLOCK-----
"""

KEY = "/usr/share/keyrings/debian-archive-keyring.gpg"


def test_deb822_gives_a_source_for_each_suite():
    found = list(parse_deb822(BOOKWORM_IMAGE))
    assert [(source.uri, source.suite) for source in found] == [
        ("http://deb.debian.org/debian", "bookworm"),
        ("http://deb.debian.org/debian", "bookworm-updates"),
        ("http://deb.debian.org/debian-security", "bookworm-security"),
    ]
    assert found[0].options == {"signed-by": KEY}


def test_deb822_with_several_addresses_and_an_embedded_key():
    found = list(parse_deb822(EMBEDDED_KEY))
    assert [source.uri for source in found] == ["https://mirror.example/debian", "https://second.example/debian"]
    assert found[0].components == ("main", "contrib")
    assert found[0].options == {}


@pytest.mark.parametrize("line", ["Enabled: no", "Types: deb-src"])
def test_deb822_sources_that_are_off_or_of_sources_are_passed_over(line):
    text = "Types: deb\nURIs: http://x/debian\nSuites: sid\nComponents: main\n"
    text = text.replace("Types: deb", line) if line.startswith("Types") else text + line + "\n"
    assert list(parse_deb822(text)) == []


def test_one_line_format_with_comments_options_and_trailing_slash():
    found = list(parse_list(INSTALLER))
    assert [source.suite for source in found] == ["bookworm", "bookworm-security", "bookworm"]
    assert found[2].options == {"arch": "amd64", "signed-by": "/etc/apt/keyrings/docker.asc"}


def test_the_mirror_is_known_by_the_end_of_its_address():
    main, security = mirrors(list(parse_list(INSTALLER)))
    assert main is not None
    assert main.uri == "http://ftp.de.debian.org/debian/"
    assert security is not None
    assert security.uri == "http://security.debian.org/debian-security"


def test_both_files_of_the_directory_are_read(tmp_path):
    (tmp_path / "sources.list").write_text(INSTALLER)
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "debian.sources").write_text(BOOKWORM_IMAGE)
    (tmp_path / "sources.list.d" / "old.list.save").write_text("deb http://old/debian woody main\n")
    uris = {source.uri for source in machine_sources(tmp_path)}
    assert "http://deb.debian.org/debian" in uris
    assert "http://ftp.de.debian.org/debian/" in uris
    assert "http://old/debian" not in uris


def test_another_suite_comes_from_the_same_mirror_with_its_keys():
    lines = suite_lines("trixie", list(parse_deb822(BOOKWORM_IMAGE)))
    assert lines == [f"deb [signed-by={KEY}] http://deb.debian.org/debian trixie main"]


def test_a_long_term_suite_has_its_security_archive_beside_the_mirror():
    lines = suite_lines("bullseye", [Source("http://mirror/debian", "bookworm", ("main",), {"signed-by": KEY})])
    assert lines[1] == f"deb [signed-by={KEY}] http://mirror/debian-security bullseye-security main"


def test_trusted_is_never_taken_over():
    source = Source("http://mirror/debian", "bookworm", ("main",), {"trusted": "yes", "signed-by": KEY})
    assert "trusted" not in " ".join(suite_lines("trixie", [source]))


def test_a_machine_without_debian_sources_uses_debians_own_mirror():
    ubuntu = list(parse_list("deb http://archive.ubuntu.com/ubuntu jammy main\n"))
    assert "http://deb.debian.org/debian trixie main" in suite_lines("trixie", ubuntu)[0]


def test_the_configuration_keeps_apt_away_from_the_machine(tmp_path):
    text = configuration(tmp_path)
    for setting in ("Dir::State ", "Dir::State::lists", "Dir::Cache ", "Dir::Etc::sourcelist"):
        line = next(line for line in text.splitlines() if line.startswith(setting))
        assert str(tmp_path) in line
    assert "AllowUnauthenticated" not in text
    assert "AllowInsecure" not in text
