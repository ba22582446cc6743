"""The process engine: kprobes of our own inside a running process."""
