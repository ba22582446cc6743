"""The compiler's front: Python handler source to IR. `compile` is the door; docs/language.md is the reference."""
