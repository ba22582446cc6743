"""The nouns: probes, maps, types, layouts and plans. Frozen data, no I/O."""
