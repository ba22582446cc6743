"""IR -> LLVM IR -> BPF or native code."""
