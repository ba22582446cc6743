"""Definitions in the kernel's language become IR: what their arguments fetch, in the kernel's widths."""
