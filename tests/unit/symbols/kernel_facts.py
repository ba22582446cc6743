"""A target whose files are given: the port `Facts` for tests."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace


@dataclass
class FactsOf:
    kallsyms_path: Path
    btf_path: Path | None = None
    texts: dict[str, str] = field(default_factory=dict)
    features: object = field(default_factory=lambda: SimpleNamespace(key="", cpus=2))

    def kallsyms(self):
        return str(self.kallsyms_path)

    def btf(self, module=""):
        return str(self.btf_path) if self.btf_path and not module else None

    def modules(self):
        return []

    def text(self, what):
        return self.texts.get(what)
