"""CPU facts: registers, ABI tables, instruction rewriting. No running process is touched here."""
