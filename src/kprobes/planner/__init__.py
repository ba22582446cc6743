"""Probes + a target's facts -> a plan: resolve the places, choose the ways in, compile the handlers."""
