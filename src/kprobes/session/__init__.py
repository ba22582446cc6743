"""Probes in place: attaching them, and the session that comes of it. This file only hands names on."""

from __future__ import annotations

from kprobes.session.attaching import attach, attach_to, renew, warn_of, within_of
from kprobes.session.counts import AssertStats, ProbeStats
from kprobes.session.session import Session
from kprobes.session.stream import POLL_S

__all__ = [
    "POLL_S",
    "AssertStats",
    "ProbeStats",
    "Session",
    "attach",
    "attach_to",
    "renew",
    "warn_of",
    "within_of",
]
