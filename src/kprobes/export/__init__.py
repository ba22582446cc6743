"""What leaves kprobes: kernel modules in C, and compiled bundles."""
