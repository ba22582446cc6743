"""The typed intermediate representation: nodes, verifier, interpreter."""
