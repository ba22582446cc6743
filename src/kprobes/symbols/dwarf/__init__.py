"""Debugging information of programs and libraries (DWARF 2 to 5): types, functions, source lines.

`types.ObjectTypes` is the door. Nothing is read before it is asked for, and then only the units that the question is
about. Input is not trusted: whatever is malformed raises FormatError.

The reader is our own since the libraries at hand don't answer what probes ask: drgn finds functions by name and not
by address (of static ones that share a name it takes any, of those that link-time optimisation moved it tells no
parameters), and knows neither inlined copies nor the addresses of a line; pyelftools takes 1.5 s for a large
unit.
"""
