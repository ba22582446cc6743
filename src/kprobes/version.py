"""The version, where everything inside can read it."""

VERSION = "0.1.0"
