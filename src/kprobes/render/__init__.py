"""Data in, picture out. Imports nothing of kprobes."""
