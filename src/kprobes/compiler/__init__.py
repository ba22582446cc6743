"""Python handler -> typed IR -> machine code. The front and the back meet only in the IR."""
