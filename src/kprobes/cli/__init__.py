"""The command `kprobes`: one file a command."""
