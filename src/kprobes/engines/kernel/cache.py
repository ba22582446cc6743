"""The answers of feature probes on disk, by the kernel's build-id: lines of `name=yes` and `name=no`."""

from __future__ import annotations

import os

from kprobes.engines.kernel.files import read_bytes

_WORDS = {"yes": True, "no": False}


def folder() -> str:
    """Return the directory of our cached files, which may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not base.startswith("/"):
        home = os.environ.get("HOME", "")
        base = f"{home}/.cache" if home.startswith("/") else ""
    return f"{base}/kprobes" if base else ""


def parse_answers(text: str) -> dict[str, bool]:
    """Return the answers in *text*; lines that are not understood are left out."""
    answers = {}
    for line in text.splitlines():
        name, _, word = line.partition("=")
        if name.isidentifier() and word in _WORDS:
            answers[name] = _WORDS[word]
    return answers


def format_answers(answers: dict[str, bool]) -> str:
    """Return the text that `parse_answers` reads."""
    return "".join(f"{name}={'yes' if answer else 'no'}\n" for name, answer in sorted(answers.items()))


def load_answers(key: str) -> dict[str, bool]:
    """Return the cached answers for the kernel *key*; empty where there are none."""
    place = folder()
    if not (place and key):
        return {}
    return parse_answers((read_bytes(f"{place}/features-{key}") or b"").decode("ascii", "replace"))


def store_answers(key: str, answers: dict[str, bool]) -> None:
    """Keep *answers* for the kernel *key*; a cache that can't be written is left alone."""
    place = folder()
    if not (place and key):
        return
    draft = f"{place}/.features-{key}.{os.getpid()}"
    try:
        os.makedirs(place, mode=0o700, exist_ok=True)  # noqa: PTH103  (no pathlib on the way to the first event)
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, format_answers(answers).encode())
        finally:
            os.close(fd)
        os.replace(draft, f"{place}/features-{key}")  # noqa: PTH105
    except OSError:
        return
