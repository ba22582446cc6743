"""The kernel's own C interface to its probes, in Python: a thin face over probes and sessions.

`objects` has what is registered, `functions` the calls, `module` what holds registered probes together.
"""
