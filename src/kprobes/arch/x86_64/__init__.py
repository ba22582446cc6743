"""x86-64: decode, relocate, assemble, detour. Bytes in, bytes out."""
