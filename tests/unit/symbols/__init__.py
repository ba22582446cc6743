"""Tests of `kprobes.symbols`."""
