"""Probes + a target's facts -> a plan: resolve the places, choose the ways in, compile the handlers."""

from kprobes.planner.build import plan_probes

__all__ = ["plan_probes"]
