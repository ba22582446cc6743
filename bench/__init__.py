"""What kprobes costs, measured beside what others cost: `python -m bench [NAMES...]`, or `make bench` for all.

Each benchmark is a module with `run(lab)`, which yields figures. Ours and the reference are measured in turns, in the
same guest or on the same machine, so that noise hits both; what is shown of each is the least of its runs (noise only
adds), and the middle one where the figure is a start. A reference that is not installed is skipped, and said so.
"""
