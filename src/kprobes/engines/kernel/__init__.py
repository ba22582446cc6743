"""The kernel engine: bpf(2), perf_event_open(2) and tracefs."""
