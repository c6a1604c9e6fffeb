"""The command line: one module per command, each of which calls the public API."""
