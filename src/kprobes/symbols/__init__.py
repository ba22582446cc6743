"""Names and types: kallsyms, BTF, ELF, DWARF."""
